import edgellm

with edgellm.load("stories") as llm:
    ids = llm.tokenizer.encode("Once upon a time")
    completion = llm.generate(ids[:-1], max_tokens=4)
    print(llm.tokenizer.decode([*ids, *completion.ids]))
    end = llm.tokenizer.token_to_id("</s>")
    if end is not None:
        print(llm.tokenizer.id_to_token(end))
