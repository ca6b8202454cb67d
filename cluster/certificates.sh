#!/usr/bin/env bash
# Certificates for TLS between Ray's processes: an authority of the cluster's own, and a certificate of each node.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: cluster/certificates.sh authority FOLDER            make the authority; its key stays on the machine that makes it
       cluster/certificates.sh node FOLDER NAME ADDRESS... make the certificate of a node with these addresses, 30 days
       cluster/certificates.sh env FOLDER NAME             print what to export on the node
TEXT
}

die() {
  printf 'cluster/certificates.sh: %s\n' "$*" >&2
  exit 1
}

DAYS_AUTHORITY=365
DAYS_NODE=30

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

authority() {
  local folder=$1
  [[ ! -e $folder/authority.key ]] || die "$folder/authority.key exists; nodes trust it, so it is not made anew"
  mkdir -p "$folder"
  new_key "$folder/authority.key"
  openssl req -x509 -new -key "$folder/authority.key" -days "$DAYS_AUTHORITY" \
    -subj "/CN=ecgdist cluster authority" -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign" -out "$folder/authority.crt"
}

# Ray's processes are servers and clients of each other, and find themselves by localhost, too.
node() {
  local folder=$1 name=$2 names="DNS:localhost,IP:127.0.0.1" address said
  shift 2
  [[ $name =~ ^[A-Za-z0-9.-]+$ && $name != authority ]] || die "$name is no name for a node"
  [[ -f $folder/authority.key ]] || die "$folder has no authority: make one first"
  for address in "$@"; do
    if [[ $address =~ ^[0-9.]+$|: ]]; then names+=",IP:$address"; else names+=",DNS:$address"; fi
  done
  new_key "$folder/$name.key"
  openssl req -new -key "$folder/$name.key" -subj "/CN=$name" -out "$folder/$name.csr"
  said=$(openssl x509 -req -in "$folder/$name.csr" -days "$DAYS_NODE" -CA "$folder/authority.crt" \
    -CAkey "$folder/authority.key" -out "$folder/$name.crt" -extfile <(
      printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n'
      printf 'extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$names"
    ) 2>&1) || die "$said"
  rm "$folder/$name.csr"
}

print_env() {
  local folder
  folder=$(cd "$1" && pwd)
  [[ -f $folder/$2.crt ]] || die "$folder has no certificate of $2"
  cat <<TEXT
export RAY_USE_TLS=1
export RAY_TLS_SERVER_CERT=$(printf %q "$folder/$2.crt")
export RAY_TLS_SERVER_KEY=$(printf %q "$folder/$2.key")
export RAY_TLS_CA_CERT=$(printf %q "$folder/authority.crt")
TEXT
}

main() {
  local command=${1:-}
  shift || true
  umask 077
  command -v openssl >/dev/null || die "openssl is not on the PATH"
  case $command:$# in
    authority:1) authority "$@" ;;
    node:[012]) usage >&2; exit 2 ;;
    node:*) node "$@" ;;
    env:2) print_env "$@" ;;
    *) usage >&2; exit 2 ;;
  esac
}

main "$@"
