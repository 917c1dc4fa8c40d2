# shellcheck shell=bash
# What the scripts of this folder share: errors of one line, --help out of a script's own head, --dry-run.
set -euo pipefail

# shellcheck disable=SC2034 # for the scripts
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry=

# die MESSAGE [CODE]
die() {
  echo "${0##*/}: $1" >&2
  exit "${2:-2}"
}

# The comment at the head of the script.
help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit 0
}

# need PROGRAM... : they are on PATH; a dry run goes without them.
need() {
  local program
  for program in "$@"; do
    [ -n "$dry" ] || command -v "$program" >/dev/null || die "expected the program $program on PATH; install it"
  done
}

# run COMMAND... : say what is done (a dry run: on stdout), and do it (a dry run: do not).
run() {
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo
  else
    { printf '+ ' && printf '%q ' "$@" && echo; } >&2
    "$@"
  fi
}

# options "$@" : takes the leading options of every script; what is left stands in `rest`.
options() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help ;;
      --dry-run) dry=1 ;;
      -*) die "unknown option $1; see --help" ;;
      *) break ;;
    esac
    shift
  done
  rest=("$@")
}

# kubernetes OVERLAY : what every script for a cluster checks; sets `kube` and `built`, a folder for kustomizations.
kubernetes() {
  [ -d "$deploy/kubernetes/overlays/$1" ] ||
    die "$1: expected one of $(cd "$deploy/kubernetes/overlays" && echo *) (deploy/kubernetes/overlays)"
  [ -n "${IMAGE:-}" ] || die "expected IMAGE=registry/filterdb@sha256:… in the environment"
  case $IMAGE in
    *@sha256:*) image="newName: ${IMAGE%%@*}, digest: ${IMAGE#*@}" ;;
    *:*) [ "$1" = kind ] && image="newName: ${IMAGE%:*}, newTag: ${IMAGE##*:}" || image='' ;;
    *) image='' ;;
  esac
  [ -n "$image" ] || die "IMAGE: expected registry/filterdb@sha256:… (overlay kind: also name:tag), got $IMAGE"
  if grep -q SET-ME "$deploy/kubernetes/overlays/$1/parameters.env"; then
    die "expected your own values in deploy/kubernetes/overlays/$1/parameters.env in the place of SET-ME"
  fi
  need kubectl
  kube=(kubectl --namespace filterdb)
  built=${TMPDIR:-/tmp}/filterdb-kustomize
  if [ -z "$dry" ]; then
    built=$(mktemp -d)
    trap 'rm -rf "$built"' EXIT
    cp -R "$deploy/kubernetes" "$built/"
  fi
}

# apply FOLDER KIND... : a folder of deploy/kubernetes with IMAGE, without the resources of these kinds. Again: no change.
apply() {
  local folder=$1 kind text
  shift
  text=$(
    echo "namespace: filterdb"
    echo "resources: [kubernetes/$folder]"
    echo "images: [{name: filterdb, $image}]"
    [ $# -eq 0 ] || echo "patches:"
    for kind in "$@"; do
      printf '%s\n' "  - target: {kind: $kind}" "    patch: '{\$patch: delete, apiVersion: v1, kind: $kind, metadata: {name: any}}'"
    done
  )
  if [ -n "$dry" ]; then
    printf '%s\n' "# $built/kustomization.yaml:" "$text" | sed '2,$s/^/#   /'
  else
    echo "$text" >"$built/kustomization.yaml"
  fi
  run "${kube[@]}" apply --kustomize "$built"
}

# The certificates of all parts: made once, and again only by hand (deploy/make-tls).
tls_secret() {
  if [ -z "$dry" ] && "${kube[@]}" get secret filterdb-tls >/dev/null 2>&1; then return 0; fi
  run "$deploy/make-tls" "$built/tls" filterdb-scheduler.filterdb.svc 127.0.0.1
  run "${kube[@]}" create secret generic filterdb-tls --from-file="$built/tls/ca.crt" \
    --from-file="$built/tls/tls.crt" --from-file="$built/tls/tls.key"
}

# The keys of an S3 server (AWS's buckets are reached by a role): asked for before a job fails without them.
s3_secret() {
  grep -q '^AWS_ENDPOINT_URL=' "$deploy/kubernetes/overlays/$1/parameters.env" || return 0
  [ -z "$dry" ] || return 0
  "${kube[@]}" get secret filterdb-s3 >/dev/null 2>&1 || die "expected the Secret filterdb-s3; kubectl --namespace filterdb \
create secret generic filterdb-s3 --from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=… makes it"
}
