"""Health, metrics, and texts as tokens."""

import re

TEXT = "Once upon a time"


def metrics(client):
    status, headers, text = client.request("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {}
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            matched = re.fullmatch(r'(edgellm_\w+(?:\{(?:\w+="[^"]*",?)+\})?) ([0-9.e+-]+)', line)
            assert matched, line
            found[matched[1]] = float(matched[2])
    return found


def test_the_server_is_there_and_ready(client):
    assert client.get("/health") == (200, {"status": "ok"})
    assert client.get("/ready") == (200, {"status": "ready"})


def test_metrics_count_what_was_answered(client):
    before = metrics(client)
    assert client.post("/v1/completions", prompt=TEXT, max_tokens=5)[0] == 200
    assert client.post("/v1/completions", prompt=TEXT, n=0)[0] == 400
    client.get("/nothing")
    after = metrics(client)
    changed = {
        name: after[name] - before.get(name, 0)
        for name in after
        if after[name] != before.get(name, 0)
    }
    path = 'edgellm_http_requests_total{endpoint="/v1/completions"'
    assert changed[path + ',status="200"}'] == 1
    assert changed[path + ',status="400"}'] == 1
    assert changed['edgellm_http_requests_total{endpoint="other",status="404"}'] == 1
    assert changed['edgellm_generation_tokens_total{model_name="stories"}'] == 5
    assert changed['edgellm_request_success_total{finished_reason="length"}'] == 1
    assert changed["edgellm_time_to_first_token_seconds_count"] == 1
    assert changed['edgellm_time_to_first_token_seconds_bucket{le="+Inf"}'] == 1
    assert changed["edgellm_inter_token_latency_seconds_count"] == 4
    assert after['edgellm_num_requests_running{model_name="stories"}'] == 0
    assert after['edgellm_kv_cache_bytes{model_name="stories",state="budget"}'] > 0


def test_texts_become_tokens_in_both_forms(stories, client):
    tokenizer = stories.tokenizer
    ids = tokenizer.encode(TEXT)
    _, vllm = client.post("/tokenize", prompt=TEXT, return_token_strs=True)
    assert vllm == {
        "count": len(ids),
        "max_model_len": stories.context,
        "tokens": ids,
        "token_strs": [tokenizer.id_to_token(token) for token in ids],
    }
    messages = [{"role": "user", "content": TEXT}]
    _, chat = client.post("/tokenize", messages=messages)
    assert chat["tokens"] == tokenizer.apply_chat_template(messages)
    plain = tokenizer.encode(TEXT, add_special_tokens=False)
    status, _, body = client.request("POST", "/tokenize", {"content": TEXT})
    assert (status, body) == (200, f'{{"tokens":{plain}}}'.replace(" ", "").encode())
    _, pieces = client.post("/tokenize", content=TEXT, add_special=True, with_pieces=True)
    assert [one["id"] for one in pieces["tokens"]] == ids
    _, text = client.post("/detokenize", tokens=plain)
    assert text == {"prompt": TEXT, "content": TEXT}
    assert client.post("/tokenize")[0] == 400
    status, value = client.post("/detokenize", tokens=["a"])
    assert (status, value["error"]["param"]) == (400, "tokens")
