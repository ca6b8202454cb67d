#!/usr/bin/env bash
# Two Ray nodes with token authentication and an S3 server on this machine, to try everything on.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: cluster/local.sh up [--cpus N]   start two Ray nodes of N logical CPUs each (4), and an S3 server with a bucket
       cluster/local.sh env             print what to export: eval "$(cluster/local.sh env)"
       cluster/local.sh status          what runs; exit code 1 unless all of it does
       cluster/local.sh down            end all of it; what is in the bucket goes with it
TEXT
}

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
STATE=${ECGDIST_CLUSTER_STATE:-$ROOT/.cluster}
BUCKET=ecg
NODES=(head worker)
START_S=180 # of one process; a busy machine takes a minute
STOP_S=20   # until what does not end by itself is killed
ORPHANS_S=5 # the same for what is left when the process that started it is gone
CPUS=4
OBJECT_STORE_BYTES=200000000

say() { printf '%s\n' "$*"; }

die() {
  printf 'cluster/local.sh: %s\n' "$*" >&2
  exit 1
}

# --- processes: each is the leader of a session of its own, which its descendants stay in ---

BOOT=$(</proc/sys/kernel/random/boot_id)

# Sets started, in the kernel's ticks, and session of a process; an id is used again, but not with the same start.
look_at() {
  local stat=""
  local -a fields
  { IFS= read -r -d '' stat <"/proc/$1/stat"; } 2>/dev/null || [[ -n $stat ]] || return 1
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != Z ]] && session=${fields[3]} started=${fields[19]}
}

# Sets leader and began of what was started under this name.
read_note() {
  local boot
  [[ -f $STATE/$1.process ]] && read -r boot leader began <"$STATE/$1.process" && [[ $boot == "$BOOT" ]]
}

# Whether the process that was started under this name still runs.
is_running() {
  local leader began started session
  read_note "$1" && look_at "$leader" && [[ $started == "$began" ]]
}

# Ids of all processes in the session that was started under this name, also after its leader has ended.
members() {
  local leader began started session path
  read_note "$1" || return 0
  if look_at "$leader" && [[ $started != "$began" ]]; then
    return 0 # the id belongs to somebody else by now
  fi
  for path in /proc/[0-9]*; do
    if look_at "${path#/proc/}" && [[ $session == "$leader" ]]; then
      say "${path#/proc/}"
    fi
  done
}

# NAME COMMAND...: start in a session of its own, and note it at once.
launch() {
  local name=$1 started session
  shift
  setsid "$@" >"$STATE/$name.log" 2>&1 </dev/null 9>&- &
  look_at $! || die "$name ended at once: $(tail -n 5 "$STATE/$name.log")"
  say "$BOOT $! $started" >"$STATE/$name.process"
}

# NAME: ask to end, then make it end.
finish() {
  local name=$1 deadline=$((SECONDS + STOP_S)) pids leader began
  if is_running "$name" && read_note "$name"; then
    kill -TERM "$leader" 2>/dev/null || true
  fi
  while pids=$(members "$name") && [[ -n $pids ]]; do
    if ! is_running "$name" && ((deadline > SECONDS + ORPHANS_S)); then
      deadline=$((SECONDS + ORPHANS_S))
    fi
    if ((SECONDS >= deadline)); then
      # shellcheck disable=SC2086 # a list of process ids
      kill -KILL $pids 2>/dev/null || true
    fi
    ((SECONDS < deadline + STOP_S)) || die "$name does not end: processes $(tr '\n' ' ' <<<"$pids")"
    sleep 0.2
  done
  rm -f "$STATE/$name.process"
}

finish_all() {
  local name
  for name in worker head s3; do
    finish "$name"
  done
}

clear_state() {
  local scratch
  if [[ -f $STATE/scratch ]]; then
    scratch=$(<"$STATE/scratch")
    [[ $scratch == /tmp/ecgdist-* ]] && rm -rf -- "$scratch"
  fi
  rm -rf -- "$STATE"
}

# --- starting ---

find_programs() {
  local name
  [[ -x $ROOT/.venv/bin/ray ]] && PATH=$ROOT/.venv/bin:$PATH
  for name in python ray weed setsid flock; do
    command -v "$name" >/dev/null || die "$name is not on the PATH; run \`make install\` (setsid and flock are of util-linux)"
  done
}

# So many ports that nobody listens on now, each with the port 10,000 above it (where SeaweedFS has its gRPC service),
# below those that Linux gives to outgoing connections.
free_ports() {
  python - "$1" <<'PYTHON'
import random, socket, sys

wanted, held = int(sys.argv[1]), []
for port in random.sample(range(20000, 22700), 2700):
    pair = [socket.socket(), socket.socket()]
    try:
        for offset, one in zip((0, 10000), pair):
            one.bind(("127.0.0.1", port + offset))
    except OSError:
        continue
    held.append(pair)
    print(port)
    if len(held) == wanted:
        sys.exit()
sys.exit("there are not enough free ports from 20000 to 22700")
PYTHON
}

write_settings() {
  local -a port
  mapfile -t port < <(free_ports 14)
  [[ ${#port[@]} == 14 ]] || die "no free ports were found"
  cat >"$STATE/settings" <<TEXT
GCS_PORT=${port[0]} DASHBOARD_PORT=${port[1]} CLIENT_PORT=${port[2]}
HEAD_AGENT_PORT=${port[3]} HEAD_GRPC_PORT=${port[4]} HEAD_ENV_PORT=${port[5]} HEAD_METRICS_PORT=${port[6]}
WORKER_AGENT_PORT=${port[7]} WORKER_GRPC_PORT=${port[8]} WORKER_ENV_PORT=${port[9]} WORKER_METRICS_PORT=${port[10]}
S3_PORT=${port[11]} MASTER_PORT=${port[12]} VOLUME_PORT=${port[13]}
TEXT
  python - "$STATE" <<'PYTHON'
import json, pathlib, secrets, sys

state = pathlib.Path(sys.argv[1])
key, secret = secrets.token_hex(10), secrets.token_hex(20)
identity = {
    "name": "local",
    "credentials": [{"accessKey": key, "secretKey": secret}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}
(state / "token").write_text(secrets.token_hex(32))
(state / "s3.json").write_text(json.dumps({"identities": [identity]}))
(state / "credentials").write_text(
    f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
)
PYTHON
  chmod 600 "$STATE/token" "$STATE/s3.json" "$STATE/credentials"
}

read_settings() {
  # shellcheck source=/dev/null # written by write_settings
  [[ -f $STATE/settings ]] && source "$STATE/settings"
}

# No key is printed: the variables name files that only their owner can read.
print_env() {
  cat <<TEXT
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_ENDPOINT_URL_S3 RAY_AUTH_TOKEN
export RAY_ADDRESS=127.0.0.1:$GCS_PORT
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD_PORT
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$(printf %q "$STATE/token")
export AWS_ENDPOINT_URL=http://127.0.0.1:$S3_PORT
export AWS_SHARED_CREDENTIALS_FILE=$(printf %q "$STATE/credentials")
export AWS_DEFAULT_REGION=us-east-1
export AWS_EC2_METADATA_DISABLED=true
TEXT
}

await_process() { # NAME CONDITION...: until the condition holds; else says what went wrong
  local name=$1 deadline=$((SECONDS + START_S))
  shift
  until "$@"; do
    is_running "$name" || { say "$name ended while it started"; return 1; }
    ((SECONDS < deadline)) || { say "$name was not ready within $START_S s"; return 1; }
    sleep 0.2
  done
}

says_started() { grep -q 'Ray runtime started' "$STATE/$1.log"; }

start_s3() {
  local filer
  filer=$(free_ports 1)
  mkdir "$STATE/s3"
  # It would take keys from the environment for its own.
  launch s3 env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY weed server "-dir=$STATE/s3" -ip=127.0.0.1 \
    -ip.bind=127.0.0.1 "-master.port=$MASTER_PORT" "-volume.port=$VOLUME_PORT" -volume.max=50 \
    -master.volumeSizeLimitMB=256 -filer "-filer.port=$filer" -s3 "-s3.port=$S3_PORT" \
    "-s3.config=$STATE/s3.json" -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false
  await_process s3 make_bucket || die "its last words: $(tail -n 5 "$STATE/s3.log")"
}

make_bucket() {
  (
    eval "$(print_env)"
    python - "$BUCKET" 2>/dev/null <<'PYTHON'
import sys

import boto3
from botocore.config import Config

bucket = sys.argv[1]
client = boto3.client("s3", config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}))
if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
    client.create_bucket(Bucket=bucket)
client.put_object(Bucket=bucket, Key=".ready", Body=b"")
PYTHON
  )
}

# NAME ARGUMENT...: a Ray node; on a busy machine Ray gives up waiting for its own processes, so it gets three tries.
start_node() {
  local name=$1 try
  shift
  for try in 1 2 3; do
    launch "$name" ray start "$@" --block --node-ip-address=127.0.0.1 "--num-cpus=$CPUS" \
      "--object-store-memory=$OBJECT_STORE_BYTES" --min-worker-port=0 --max-worker-port=0 --disable-usage-stats
    if await_process "$name" says_started "$name"; then
      return
    fi
    finish "$name"
    [[ $try == 3 ]] || say "trying once more"
  done
  die "the last words of the $name node: $(tail -n 15 "$STATE/$name.log")"
}

start_nodes() {
  local scratch
  scratch=$(mktemp -d /tmp/ecgdist-XXXXXX) # short: the path of a socket may not be long
  say "$scratch" >"$STATE/scratch"
  scratch+=/ray # Ray opens its own folder to everybody; the one around it stays closed
  eval "$(print_env)"
  unset RAY_ADDRESS # it would be taken for a cluster to join
  export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2} # else processes that read grow for hours
  start_node head --head "--port=$GCS_PORT" "--temp-dir=$scratch" "--ray-client-server-port=$CLIENT_PORT" \
    --dashboard-host=127.0.0.1 "--dashboard-port=$DASHBOARD_PORT" "--dashboard-agent-listen-port=$HEAD_AGENT_PORT" \
    "--dashboard-agent-grpc-port=$HEAD_GRPC_PORT" "--runtime-env-agent-port=$HEAD_ENV_PORT" \
    "--metrics-export-port=$HEAD_METRICS_PORT"
  start_node worker "--address=127.0.0.1:$GCS_PORT" "--dashboard-agent-listen-port=$WORKER_AGENT_PORT" \
    "--dashboard-agent-grpc-port=$WORKER_GRPC_PORT" "--runtime-env-agent-port=$WORKER_ENV_PORT" \
    "--metrics-export-port=$WORKER_METRICS_PORT"
}

# --- commands ---

what_runs() {
  local name
  for name in s3 "${NODES[@]}"; do
    is_running "$name" && say "$name"
  done
  return 0
}

lock() {
  exec 9>"$STATE.lock"
  flock --nonblock 9 || die "another cluster/local.sh is at work on $STATE; wait for it"
}

up() {
  find_programs
  lock
  local running
  running=$(what_runs | wc -l)
  if [[ $running == 3 ]]; then
    say "it runs already; nothing was started"
    return
  fi
  [[ $running == 0 ]] || die "only part of it runs ($(what_runs | tr '\n' ' ')): run \`cluster/local.sh down\` first"
  finish_all # what a leader that was killed has left
  clear_state
  (umask 077 && mkdir -p "$STATE")
  umask 077
  trap 'trap - EXIT; finish_all; keep_logs; clear_state' EXIT
  trap 'exit 130' INT TERM
  write_settings
  read_settings
  say "starting an S3 server"
  start_s3
  say "starting two Ray nodes with $CPUS logical CPUs each"
  start_nodes
  trap - EXIT INT TERM
  say "dashboard   http://127.0.0.1:$DASHBOARD_PORT, which asks for the token in $STATE/token"
  say "bucket      s3://$BUCKET"
  say "metrics     $(<"$STATE/scratch")/ray/prom_metrics_service_discovery.json"
  say "next        eval \"\$(cluster/local.sh env)\""
}

# What a start that failed has said stays, beside the state that goes.
keep_logs() {
  rm -rf -- "$STATE.failed"
  mkdir -p "$STATE.failed"
  cp "$STATE"/*.log "$STATE.failed/" 2>/dev/null || true
  say "nothing was left running; logs are in $STATE.failed" >&2
}

down() {
  [[ -d $STATE ]] || { say "nothing runs"; return; }
  lock
  finish_all
  clear_state
  say "all of it has ended"
}

status() {
  local name running=0
  for name in s3 "${NODES[@]}"; do
    if is_running "$name"; then
      say "$name: runs, $(members "$name" | wc -l) processes"
      running=$((running + 1))
    else
      say "$name: does not run"
    fi
  done
  [[ $running == 3 ]] || return 1
  read_settings
  say "dashboard: http://127.0.0.1:$DASHBOARD_PORT"
}

main() {
  local command=${1:-}
  shift || true
  if [[ $command == up && ${1:-} == --cpus ]]; then
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--cpus ${2:-} is not a number of CPUs"
    CPUS=$2
    shift 2
  fi
  [[ $# == 0 ]] || { usage >&2; exit 2; }
  case $command in
    up) up ;;
    down) down ;;
    status) status ;;
    env)
      [[ $(what_runs | wc -l) == 3 ]] || die "it does not run: \`cluster/local.sh up\`"
      read_settings
      print_env
      ;;
    *) usage >&2; exit 2 ;;
  esac
}

main "$@"
