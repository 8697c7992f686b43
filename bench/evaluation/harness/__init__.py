"""The tasks of lm-evaluation-harness on edgellm's models, with records of ours.

``token_rules.py`` and ``generation_settings.py`` translate requests; ``adapter.py`` answers them;
``library.py`` has the class that the harness knows. ``tasks.py`` and ``task_index.py`` find tasks,
``samples.py`` reads what the harness has noted of each question, ``run.py`` does it all. The
harness is imported only where it is used.
"""
