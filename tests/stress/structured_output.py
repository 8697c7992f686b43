"""Answers of the bundled model, held to 30 schemas as programs have them, beside jsonschema.

python tests/stress/structured_output.py --generations 30
"""

import argparse
import json
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by hand, too

import jsonschema

import edgellm
from edgellm import Grammar, Sampling

TEXT = {"type": "string"}
SHORT = {"type": "string", "maxLength": 24}
WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
TRUTH = {"type": "boolean"}


def closed(**properties):
    """An object whose members are all there, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def listed(item, least=0, most=3):
    return {"type": "array", "items": item, "minItems": least, "maxItems": most}


ADDRESS = closed(street=SHORT, city=SHORT, zip={"type": "string", "pattern": "^[0-9]{5}$"})
COMMENT = {
    "type": "object",
    "properties": {
        "author": SHORT,
        "text": SHORT,
        "replies": {"type": "array", "items": {"$ref": "#/$defs/comment"}, "maxItems": 2},
    },
    "required": ["author", "text"],
    "additionalProperties": False,
}

NAMED = {
    "type": "object",
    "patternProperties": {"^[a-z]{1,8}$": SHORT},
    "additionalProperties": False,
    "maxProperties": 2,
}

SCHEMAS = {
    # answers that programs ask for
    "person": closed(name=SHORT, age={"type": "integer", "minimum": 0, "maximum": 130}),
    "sentiment": closed(label={"enum": ["positive", "neutral", "negative"]},
                        score={"type": "number", "minimum": 0, "maximum": 1}),
    "address": ADDRESS,
    "entities": closed(entities=listed(closed(text=SHORT, type={"enum": ["PER", "ORG", "LOC"]}))),
    "steps": closed(steps=listed(closed(explanation=SHORT, output=SHORT), 1), final_answer=SHORT),
    "event": closed(name=SHORT, date={"type": "string", "format": "date"}, guests=listed(SHORT)),
    "quiz": closed(question=SHORT, options=listed(SHORT, 4, 4),
                   answer={"type": "integer", "minimum": 0, "maximum": 3}),
    "recipe": closed(title=SHORT, minutes={"type": "integer", "exclusiveMinimum": 0},
                     ingredients=listed(closed(item=SHORT, grams=NUMBER), 1)),
    "optional": {"type": "object", "additionalProperties": False, "required": ["id"],
                 "properties": {"id": WHOLE, "note": {"type": ["string", "null"], "maxLength": 9}}},
    "rating": {"type": "integer", "minimum": 1, "maximum": 5},
    "names": listed(SHORT, 1, 5),
    # tools of agents
    "read_file": {"type": "object", "required": ["path"], "additionalProperties": False,
                  "properties": {"path": SHORT, "offset": {"type": "integer", "minimum": 0},
                                 "limit": {"type": "integer", "minimum": 1}}},
    "edit_file": closed(path=SHORT, old_string=SHORT, new_string=SHORT, replace_all=TRUTH),
    "search": closed(query={"type": "string", "minLength": 1, "maxLength": 20},
                     case_sensitive=TRUTH, paths=listed(SHORT)),
    "shell": closed(command=listed(SHORT, 1), timeout_ms={"type": "integer", "maximum": 600000}),
    "todo": closed(todos=listed(closed(content=SHORT, id=SHORT,
                   status={"enum": ["pending", "in_progress", "completed"]}))),
    "weather": closed(location=SHORT, unit={"enum": ["celsius", "fahrenheit", None]}),
    "send_mail": closed(to=listed({"type": "string", "format": "email", "maxLength": 30}, 1, 2),
                        subject=SHORT, body=SHORT),
    "sql": closed(table={"type": "string", "pattern": "^[a-z_]{1,16}$"}, columns=listed(SHORT, 1),
                  limit={"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}),
    "action": {"anyOf": [closed(action={"const": "click"}, x=WHOLE, y=WHOLE),
                         closed(action={"const": "type"}, text=SHORT),
                         closed(action={"const": "wait"}, s={"type": "number", "minimum": 0})]},
    # parts of OpenAPI documents
    "pet": {"type": "object", "required": ["name", "photoUrls"], "additionalProperties": False,
            "properties": {"id": WHOLE, "category": {"$ref": "#/$defs/category"}, "name": SHORT,
                           "photoUrls": listed(SHORT), "status": {"enum": ["available", "sold"]}},
            "$defs": {"category": closed(id=WHOLE, name=SHORT)}},
    "order": closed(id=WHOLE, quantity={"type": "integer", "minimum": 1},
                    shipDate={"type": "string", "format": "date-time"}, complete=TRUTH),
    "error": closed(code={"type": "integer", "minimum": 400, "maximum": 599}, message=SHORT,
                    details=NAMED),
    "page": closed(items=listed(closed(id={"type": "string", "format": "uuid"})),
                   next={"type": ["string", "null"], "maxLength": 12}),
    "shapes": listed({"oneOf": [closed(kind={"const": "circle"}, radius=NUMBER),
                                closed(kind={"const": "square"}, side=NUMBER)]}, 1),
    "price": closed(amount={"type": "number", "multipleOf": 0.01, "minimum": 0},
                    currency={"type": "string", "pattern": "^[A-Z]{3}$"}),
    # files
    "package": {"type": "object", "required": ["name", "version"], "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,20}$"},
                    "version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+$"},
                    "private": TRUTH, "keywords": listed(SHORT),
                    "scripts": NAMED}},
    "geojson": closed(type={"const": "Point"}, coordinates={
        "type": "array", "items": False, "minItems": 2,
        "prefixItems": [{"type": "number", "minimum": -180, "maximum": 180},
                        {"type": "number", "minimum": -90, "maximum": 90}]}),
    "thread": {"$ref": "#/$defs/comment", "$defs": {"comment": COMMENT}},
    "settings": {"type": "object", "additionalProperties": False,
                 "patternProperties": {"^[a-z]{1,8}\\.[a-z]{1,8}$": {"type": ["boolean", "null"]}},
                 "minProperties": 1, "maxProperties": 3},
}  # fmt: skip


def measured(generations, *, at_once=16, max_tokens=400):
    """Return how answers ended by schema, and those that are not valid."""
    ended, wrong = {}, []
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    with edgellm.load("stories", memory="1GB") as llm:
        for name, schema in SCHEMAS.items():
            grammar = Grammar.json_schema(schema)
            # in decimal numbers: of binary ones 2.3 is no multiple of 0.01
            exact = json.loads(json.dumps(schema), parse_float=Decimal)
            validator = jsonschema.Draft202012Validator(exact, format_checker=checker)
            how = [
                Sampling(temperature=1.0, seed=seed, max_tokens=max_tokens, grammar=grammar)
                for seed in range(generations)
            ]
            answers = llm.generate_batch(["Once upon a time"] * generations, how, at_once=at_once)
            ended[name] = Counter(answer.finish_reason for answer in answers)
            for answer in answers:
                if answer.finish_reason == "stop" and not _is_valid(validator, answer.text):
                    wrong.append((name, answer.text))
    return ended, wrong


def _is_valid(validator, text):
    try:
        return validator.is_valid(json.loads(text, parse_float=Decimal))
    except ValueError:
        return False


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generations", type=int, default=30)
    ended, wrong = measured(parser.parse_args().generations)
    for name, reasons in ended.items():
        sys.stdout.write(f"{name:12} {dict(reasons)}\n")
    total = sum(ended.values(), Counter())
    sys.stdout.write(f"{len(ended)} schemas: {dict(total)}; not valid: {len(wrong)} {wrong[:3]}\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
