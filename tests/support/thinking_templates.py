"""Chat templates of models that think, in the manner of those that exist."""

CUTTING = """
{%- for message in messages %}
{%- set text = message.content %}
{%- if '</think>' in text %}{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{{- '<|' + message.role + '|>' + text + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\\n\\n</think>' }}
{%- endif %}
{%- endif %}"""
"""As Qwen 3's: the reply opens the thinking; what a turn has thought is cut out of its text."""

KEEPING = """
{%- for message in messages %}
{{- '<|' + message.role + '|>' }}
{%- if message.reasoning_content %}
{{- '<think>' + message.reasoning_content + '</think>' }}
{%- endif %}
{{- message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|><think>' }}{% endif %}"""
"""The prompt opens the thinking, and it stays in the conversation."""

STRICT = """
{%- for message in messages %}
{%- if not message.content %}{{ raise_exception('a message is empty') }}{% endif %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|><think>' }}{% endif %}"""
"""Refuses an answer without text, and knows nothing of thinking that is past."""

SPECIAL = """
{%- for message in messages %}
{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"""
"""Says nothing of thinking: the tokens do, as Mistral's [THINK]."""
