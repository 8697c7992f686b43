"""Random programs of Jinja's language."""


def words(text):
    """The words of a text."""
    return text.split()


ATOMS = words(
    "1 0 i messages messages[0] messages[0].content loop loop.index x ns ns.a 'a' 'a,b' '%s' "
    "'%9999d' '{}' '{:99999}' 100000 10**9 -1 1.5 true none [] {} () range(100000) range(9) "
    "'a'*1000 [0]*1000 bos_token tools m undefined_name namespace() dict cycler joiner "
    "raise_exception strftime_now self caller varargs"
)
NAMES = words(
    "upper lower title list length join sort unique max min sum tojson string int float abs "
    "first last reverse map select reject trim replace indent round items dictsort groupby e "
    "urlencode wordcount truncate default format attr batch center selectattr"
)
METHODS = words(
    "upper split splitlines join replace strip rsplit find rfind count format items keys "
    "values get center ljust zfill encode __class__ __init__ append pop index partition "
    "startswith translate expandtabs"
)
TESTS = words("defined none string mapping iterable sequence upper lower even odd")
OPERATORS = [*words("+ - * / // % ** ~ == != < > in and or"), "not in"]


def expression(random, depth):
    """A random expression of Jinja's language."""
    if depth <= 0 or random.random() < 0.15:
        return random.choice(ATOMS)
    inner = [expression(random, depth - 1) for _ in range(3)]
    few = ", ".join(inner[: random.randrange(3)])
    return random.choice(
        [
            f"({inner[0]} {random.choice(OPERATORS)} {inner[1]})",
            f"({inner[0]} {random.choice(OPERATORS)} {inner[1]})",
            f"({inner[0]})|{random.choice(NAMES)}",
            f"({inner[0]})|{random.choice(NAMES)}({few})",
            f"({inner[0]}).{random.choice(METHODS)}({few})",
            f"({inner[0]})[{inner[1]}]",
            f"({inner[0]})[{inner[1]}:{inner[2]}]",
            f"({inner[0]})[::-1]",
            f"[{inner[0]}, {inner[1]}]",
            f"({inner[0]}, {inner[1]})",
            f"{{'a': {inner[0]}, 'b': {inner[1]}}}",
            f"({inner[0]} if {inner[1]} else {inner[2]})",
            f"({inner[0]} is {random.choice(TESTS)})",
            f"({inner[0]}, {inner[1]})|map('{random.choice(NAMES)}')|list",
            f"m({inner[0]})",
        ]
    )


def template(random, depth=3, *, endless=True):
    """A random template: loops, macros and growing values.

    Args:
        random: the case's generator.
        depth: of blocks in blocks.
        endless: whether it may have what often never ends or never fits.
    """
    parts = [
        "{% set ns = namespace(a='ab', b=[1]) %}"
        "{% macro m(x) %}{{ x }}{{ caller is defined }}{% endmacro %}"
    ]
    for _ in range(random.randint(1, 5)):
        value = expression(random, random.randint(1, 4))
        body = (
            template(random, depth - 1, endless=endless)
            if depth > 0 and random.random() < 0.4
            else f"{{{{ {value} }}}}"
        )
        many, again = "{% for i in range(4) %}", ""
        if endless:
            many, again = "{% for i in range(100000) %}", f"{{{{ m({value}) }}}}"
        parts.append(
            random.choice(
                [
                    f"{{{{ {value} }}}}",
                    f"{{% set x = {value} %}}",
                    f"{{% set ns.a = {value} %}}",
                    f"{{% set ns.a = ns.a {random.choice(OPERATORS)} ({value}) %}}",
                    f"{{% set x %}}{body}{{% endset %}}",
                    f"{{% for i in {value} %}}{body}{{% endfor %}}",
                    f"{many}{body}{{% set ns.a = ns.a ~ ns.a %}}{{% endfor %}}",
                    f"{many}{{% set ns.b = [ns.b, ns.b, {value}] %}}{{% endfor %}}",
                    f"{many}{body}{{% endfor %}}",
                    f"{{% for i in range(3) recursive %}}{body}{{{{ loop({value}) }}}}"
                    "{% endfor %}",
                    f"{{% if {value} %}}{body}{{% else %}}{{{{ x }}}}{{% endif %}}",
                    f"{{% macro m(x) %}}{body}{again}{{% endmacro %}}{{{{ m(1) }}}}",
                    f"{{% call m({value}) %}}{body}{{% endcall %}}",
                    f"{{% filter {random.choice(NAMES)} %}}{body}{{% endfilter %}}",
                    f"{{% generation %}}{body}{{% endgeneration %}}",
                    f"{{% include {value} %}}",
                    "y" * random.randrange(2000),
                ]
            )
        )
    text = "".join(parts)
    if random.random() < 0.05:
        place = random.randrange(len(text))
        text = text[:place] + random.choice("{}%#'\"()[]|\\\x00é") + text[place + 1 :]
    return text
