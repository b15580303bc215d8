#!/usr/bin/env bash
# One real question through a gateway on this machine: the draft, the final, the cost. The gateway runs on afterwards.
# Asks FIRSTDRAFT_BACKEND_URL or OpenAI (OPENAI_API_KEY) when one is given, else a recorded backend.
# QUESTION, PORT and STATE can be set; `deploy/demo.sh stop` ends what it left running.
set -euo pipefail
cd "$(dirname "$0")/.."

STATE=${STATE:-$PWD/.state/demo}
QUESTION=${QUESTION:-A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?}
PATH=$PWD/.venv/bin:$PATH

say() { printf '%s\n' "$*"; }

# Ends the process of a pid file, if it is still the one that was started.
end() {
    local file=$STATE/$1.pid pid
    pid=$(cat "$file" 2>/dev/null) || return 0
    if [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$2"; then
        kill -TERM "$pid"
        for _ in $(seq 400); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        say "stopped the $1 (process $pid)"
    fi
    rm -f "$file"
}

stop() {
    end gateway 'firstdraft serve'
    end backend tests.upstream.recorded
}

# Starts a command that outlives this script: start NAME COMMAND…
start() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$STATE/$name.out" 2>"$STATE/$name.log" &
    echo $! >"$STATE/$name.pid"
}

fail() {
    say "$1" >&2
    tail -n 20 "$STATE/$2.log" >&2
    stop
    exit 1
}

start_recorded_backend() {
    start backend python -m tests.upstream.recorded
    for _ in $(seq 200); do
        [ ! -s "$STATE/backend.out" ] || break
        kill -0 "$(cat "$STATE/backend.pid")" 2>/dev/null || break
        sleep 0.1
    done
    [ -s "$STATE/backend.out" ] || fail "The recorded backend did not start:" backend
    FIRSTDRAFT_BACKEND_URL=$(cat "$STATE/backend.out")
    export FIRSTDRAFT_BACKEND_URL
    say "Backend:  a RECORDING. No FIRSTDRAFT_BACKEND_URL and no OPENAI_API_KEY is set, so the final comes from a local"
    say "          server at $FIRSTDRAFT_BACKEND_URL that replays GPT-4's recorded answers to school problems, at a real pace."
}

# Shows what the gateway waits for; gives up at once when its process has ended.
wait_until_ready() {
    local waiting
    firstdraft status --url "$url" --wait 180 &
    waiting=$!
    while kill -0 "$waiting" 2>/dev/null; do
        if ! kill -0 "$(cat "$STATE/gateway.pid")" 2>/dev/null; then
            kill "$waiting" 2>/dev/null || true
            return 1
        fi
        sleep 0.2
    done
    wait "$waiting"
}

free_port() {
    python - <<'PYTHON'
import socket
for port in (8080, 0):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(probe.getsockname()[1])
        break
PYTHON
}

mkdir -p "$STATE"
stop
[ "${1:-}" != stop ] || exit 0

if [ -z "${FIRSTDRAFT_BACKEND_URL:-}${OPENAI_API_KEY:-}" ]; then
    start_recorded_backend
else
    say "Backend:  ${FIRSTDRAFT_BACKEND_URL:-OpenAI}, model ${FIRSTDRAFT_BACKEND_MODEL:-as in policies/models.yaml}"
fi
port=${PORT:-$(free_port)}
url=http://127.0.0.1:$port
start gateway firstdraft serve --policies policies --port "$port" --state "$STATE/gateway" --log-format json
say "Gateway:  $url, policies from policies/, log in $STATE/gateway.log"
wait_until_ready || fail "The gateway did not become ready:" gateway

say ""
say "Question: $QUESTION"
firstdraft ask --url "$url" "$QUESTION" || fail "The question was not answered:" gateway

cat <<TEXT

The gateway runs on. Ask it yourself:

  curl -N $url/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "large", "stream": true, "draft": "frames", "messages": [{"role": "user", "content": "What is the capital of France?"}]}'

  from openai import OpenAI

  client = OpenAI(base_url="$url/v1", api_key="none")
  for chunk in client.chat.completions.create(
      model="large",
      messages=[{"role": "user", "content": "What is the capital of France?"}],
      stream=True,
      extra_body={"draft": "frames"},
  ):
      print(getattr(chunk, "draft", None) or chunk.choices[0].delta.content)

  .venv/bin/firstdraft ask --url $url "Why is the sky blue?"

Stop it with: make stop
TEXT
