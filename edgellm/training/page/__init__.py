"""The page of a run, and the steps that it is drawn of.

``step_log.py`` keeps the steps beside what is saved, ``curves.py`` makes lines of them, and
``training_page.py`` is the page: curves, losses of epochs, answers before and after, settings.
"""
