"""Pages without scripts: the document, its elements as HTML, and plots as SVG.

``page.py`` is the document and its colours, ``elements.py`` has sections, tables and lists,
``plots.py`` bars and lines. Texts are escaped here.
"""
