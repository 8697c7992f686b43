"""Names of models and the Hugging Face Hub.

``resolve`` turns a name into a folder, ``download`` and ``upload`` talk to the Hub,
``remote_folder`` looks at a model before it is downloaded. Stands on ``checkpoint``.
"""
