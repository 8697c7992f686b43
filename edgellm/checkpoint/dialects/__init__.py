"""Configs and tensor names as others write them, said as LLaMA's.

``names`` finds which stored rows are which of our tensors, ``families`` lists the models that are
LLaMA under another name, ``rotary`` reads how positions are stretched, and ``config_values`` single
values. Nothing here opens a file.
"""
