"""The edge: a llama.cpp model in a process of its own, and the way to it.

In the gateway's processes:
    supervisor   EdgeSupervisor starts the process, watches it, starts it again; owned by what `serve` started
    client       EdgeClient: one per gateway worker; streams tokens, cancels at once, knows the status without I/O
    protocol     the frames on the Unix socket between client and process

In the edge process (`python -m gateway.edge.process`), from the socket inwards:
    process      arguments, signals, the parent that may die; the threads: sockets (asyncio) and decoding
    connections  the socket side: frames in, frames out, one slow reader harms nobody
    preparation  a request becomes prompt tokens: template, tokenizer, limits
    engine       the decode loop: plan, decode, sample, deliver
    scheduler    which rows go into the next step: a pure state machine, with `queue` (fairness), `prefixes` and `cells`
    json_grammar a JSON schema becomes a grammar; `grammar` holds an answer to it
    answer       one answer's text: sampling, whole UTF-8 characters, stop strings
    model        llama.cpp's low-level API; `grammar` and `quantization` import it, too, and nothing else
    hub          a model that is fetched: hf://owner/repo/file.gguf
    model_files  which GGUF to load, checked, and made faster at the first start

It must not know policies, tenants' budgets or HTTP; a tenant here is only a name that fairness counts by.
"""
