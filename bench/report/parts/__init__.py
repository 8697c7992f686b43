"""Parts of pages: the document, its elements as HTML, and plots as SVG.

``page.py`` is the document and its colours, ``elements.py`` has sections, tables and lists,
``plots.py`` bars and lines, ``interval_plot.py`` points with intervals, whose names stand where
``label_places.py`` finds room. Texts are escaped here.
"""
