"""Tools: what a model is told of them, and the calls in its replies.

``tools.py`` makes schemas of functions. ``tool_calls.py`` knows how models mark calls and finds
those in a reply, ``call_style.py`` how a chat template writes them, and ``tool_grammar.py`` holds
a reply to calls that are valid.
"""
