# shellcheck shell=bash
# What the scripts of this folder share: errors of one line, --help out of a script's own head, --dry-run, --namespace.
set -euo pipefail

# shellcheck disable=SC2034 # for the scripts
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry=
namespace=${NAMESPACE:-filterdb}
operator=${OPERATOR_NAMESPACE:-dask-operator} # the namespace of the Dask operator
image=
components=()
built=

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
      --namespace=*) namespace=${1#*=} ;;
      --namespace)
        [ $# -gt 1 ] || die "--namespace: expected a name"
        namespace=$2
        shift
        ;;
      -*) die "unknown option $1; see --help" ;;
      *) break ;;
    esac
    shift
  done
  rest=("$@")
}

# What every script for a cluster needs; sets `kube` and `built`, a folder for kustomizations.
cluster() {
  [[ $namespace =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]] || die "--namespace: expected a name in lower case, got $namespace"
  need kubectl
  kube=(kubectl --namespace "$namespace")
  missing="a missing namespace or missing rights are the work of deploy/prepare-cluster --namespace $namespace"
  built=${TMPDIR:-/tmp}/filterdb-kustomize
  if [ -z "$dry" ]; then
    built=$(mktemp -d)
    trap clean_up EXIT
    cp -R "$deploy/kubernetes" "$built/"
  fi
}

log_pid= # of what prints a log meanwhile
clean_up() {
  [ -z "$log_pid" ] || kill "$log_pid" 2>/dev/null || true
  rm -rf "$built"
}

# kubernetes OVERLAY : `cluster`, and what every script that applies an overlay checks.
kubernetes() {
  local unset
  [ -d "$deploy/kubernetes/overlays/$1" ] ||
    die "$1: expected one of $(cd "$deploy/kubernetes/overlays" && echo *) (deploy/kubernetes/overlays)"
  [ -n "${IMAGE:-}" ] || die "expected IMAGE=registry/filterdb@sha256:… in the environment"
  case $IMAGE in
    *@sha256:*) image="newName: ${IMAGE%%@*}, digest: ${IMAGE#*@}" ;;
    *:*) [ "$1" = kind ] && image="newName: ${IMAGE%:*}, newTag: ${IMAGE##*:}" || image='' ;;
    *) image='' ;;
  esac
  [ -n "$image" ] || die "IMAGE: expected registry/filterdb@sha256:… (overlay kind: also name:tag), got $IMAGE"
  for unset in "$deploy/kubernetes/overlays/$1"/*; do
    [ ! -f "$unset" ] || ! grep -q SET-ME "$unset" || die "expected your own values in $unset in the place of SET-ME"
  done
  cluster
  add_components
}

# The folders of COMPONENTS: names in deploy/kubernetes/components, or paths of folders of your own.
add_components() {
  local name
  for name in ${COMPONENTS:-}; do
    if [ -d "$deploy/kubernetes/components/$name" ]; then
      components+=("kubernetes/components/$name")
    elif [ -f "$name/kustomization.yaml" ]; then
      components+=("component-${#components[@]}")
      [ -n "$dry" ] || cp -R "$name" "$built/component-$((${#components[@]} - 1))"
    else
      die "COMPONENTS: $name: expected one of $(cd "$deploy/kubernetes/components" && echo *), or a folder with a kustomization.yaml"
    fi
  done
}

# part OVERLAY FOLDER : that folder of deploy/kubernetes, as the overlay has it.
part() {
  if [ -d "$deploy/kubernetes/overlays/$1/$2" ]; then echo "overlays/$1/$2"; else echo "$2"; fi
}

# apply FOLDER KIND... : a folder of deploy/kubernetes with namespace, components and IMAGE, without the resources of
# these kinds. Again: no change.
apply() {
  local folder=$1 kind text patches=''
  shift
  for kind in "$@"; do
    patches+="  - target: {kind: $kind}
    patch: '{\$patch: delete, apiVersion: v1, kind: $kind, metadata: {name: any}}'
"
  done
  [ "$operator" = dask-operator ] || patches+=$(operator_patches)
  text=$(
    echo "namespace: $namespace"
    echo "resources: [kubernetes/$folder]"
    [ ${#components[@]} -eq 0 ] || echo "components: [$(IFS=, && echo "${components[*]}")]"
    [ -z "$image" ] || echo "images: [{name: filterdb, $image}]"
    [ -z "$patches" ] || printf 'patches:\n%s' "$patches"
  )
  if [ -n "$dry" ]; then
    printf '%s\n' "# $built/kustomization.yaml:" "$text" | sed '2,$s/^/#   /'
  else
    echo "$text" >"$built/kustomization.yaml"
  fi
  run "${kube[@]}" apply --kustomize "$built" || die "$folder: kubectl could not apply it (its error is above); \
$missing" 74
}

# Where the operator is in another namespace.
operator_patches() {
  cat <<END
  - target: {kind: NetworkPolicy, name: operator}
    patch: |-
      - op: replace
        path: /spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name
        value: $operator
  - target: {kind: ClusterRoleBinding, name: filterdb-dask-operator-finalizers}
    patch: |-
      - op: replace
        path: /subjects/0/name
        value: system:serviceaccounts:$operator
END
}

# ask WHAT... : kubectl get, again for a while when the API server does not answer.
ask() {
  local attempt error
  for ((attempt = 1; ; attempt++)); do
    if "${kube[@]}" get --request-timeout=30s "$@" 2>"$built/error"; then return 0; fi
    error=$(head -n 1 "$built/error")
    [[ ! $error =~ orbidden|nauthorized && $attempt -lt ${ATTEMPTS:-6} ]] ||
      die "kubectl get $1: expected an answer, got (after $attempt attempts) ${error:-none}" 74
    sleep "${RETRY_PAUSE:-10}"
  done
}

# The kinds that the Dask operator brings; nothing where it is not installed.
dask_kinds() {
  "${kube[@]}" api-resources --request-timeout=30s --api-group=kubernetes.dask.org --output name ||
    die "expected the Kubernetes API to answer, it does not (its error is above)" 74
}

need_operator() {
  local kinds
  [ -z "$dry" ] || return 0
  kinds=$(dask_kinds)
  [[ $kinds == *daskjobs* ]] || die "expected the Dask operator in the cluster, its kinds are missing; \
docs/how-to/kubernetes.md, step 2, installs it"
}

# events NAME : the events of everything called NAME or NAME-…, on stderr, each once.
told=
events() {
  local line
  while IFS= read -r line; do
    [[ $'\n'$told$'\n' == *$'\n'"$line"$'\n'* ]] || echo "event: $line" >&2
    told+=$'\n'$line
  done < <("${kube[@]}" get events --request-timeout=30s --output 'jsonpath={range .items[*]}{.involvedObject.kind}/{.involvedObject.name}: {.type} {.reason}: {.message}{"\n"}{end}' |
    grep -E "^[A-Za-z]+/$1(-[^ ]*)?: (Warning|Normal [A-Za-z]*Scale)" || true)
}

# apply_overlay OVERLAY KIND... : the overlay without the resources of these kinds, once it has what its pods wait for.
apply_overlay() {
  local there='' by_cert_manager=''
  case " ${COMPONENTS:-} " in *" cert-manager "*) by_cert_manager=1 ;; esac
  # The certificates of all parts: made once, and again by deploy/renew-tls.
  [ -n "$dry" ] || there=$(ask secret filterdb-tls --ignore-not-found --output name)
  if [ -n "$there" ]; then
    check_tls
  elif [ -z "$by_cert_manager" ]; then
    make_tls_secret
  fi
  s3_secret "$1"
  apply "overlays/$1" "${@:2}"
  if [ -z "$there" ] && [ -n "$by_cert_manager" ]; then await_cert_manager; fi
}

await_cert_manager() {
  run "${kube[@]}" wait --for=create --timeout="${CERT_MANAGER_TIMEOUT:-120}s" secret/filterdb-tls ||
    die "expected cert-manager to make the Secret filterdb-tls in time; kubectl --namespace $namespace describe certificate \
filterdb-tls tells why not" 74
}

make_tls_secret() {
  run "$deploy/make-tls" "$built/tls" filterdb-scheduler "filterdb-scheduler.$namespace.svc" 127.0.0.1
  run "${kube[@]}" create secret generic filterdb-tls --from-file="$built/tls/ca.crt" \
    --from-file="$built/tls/tls.crt" --from-file="$built/tls/tls.key" ||
    die "Secret filterdb-tls: kubectl could not make it (its error is above); $missing" 74
}

# tls_file NAME : a file of the Secret.
tls_file() { ask secret filterdb-tls --output "jsonpath={.data.${1/./\\.}}" | base64 --decode; }

# The certificate of the Secret fits its CA and outlives any job: else pods would fail one after the other.
check_tls() {
  local end remedy="deploy/renew-tls --namespace $namespace makes new ones and restarts what uses them"
  need openssl
  tls_file tls.crt >"$built/tls.crt"
  tls_file ca.crt >"$built/ca.crt"
  end=$(openssl x509 -in "$built/tls.crt" -noout -enddate 2>/dev/null) ||
    die "Secret filterdb-tls: expected a certificate in tls.crt, got none; $remedy"
  end=${end#*=}
  openssl x509 -in "$built/tls.crt" -noout -checkend 86400 >/dev/null ||
    die "Secret filterdb-tls: expected certificates valid for another day, these end $end; $remedy"
  openssl verify -CAfile "$built/ca.crt" -untrusted "$built/tls.crt" "$built/tls.crt" >/dev/null 2>&1 ||
    die "Secret filterdb-tls: expected tls.crt to be signed by ca.crt, it is not; $remedy"
  openssl x509 -in "$built/tls.crt" -noout -checkend $((30 * 86400)) >/dev/null ||
    echo "${0##*/}: the certificates of Secret filterdb-tls end $end; $remedy" >&2
}

# The keys of an S3 server (AWS's buckets are reached by a role): asked for before a job fails without them.
s3_secret() {
  local there
  grep -q '^AWS_ENDPOINT_URL=' "$deploy/kubernetes/overlays/$1/parameters.env" || return 0
  [ -z "$dry" ] || return 0
  there=$(ask secret filterdb-s3 --ignore-not-found --output name)
  [ -n "$there" ] || die "expected the Secret filterdb-s3; kubectl --namespace $namespace \
create secret generic filterdb-s3 --from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=… makes it"
}

# tell_image WHAT IMAGE : say so if something runs with another image than IMAGE, and how to change that.
tell_image() {
  [ -z "$2" ] || [ "$2" = "$IMAGE" ] || echo "${0##*/}: $1 runs with the image $2, not with $IMAGE; to end it: \
kubectl --namespace $namespace delete $1" >&2
}

# Of the interactive cluster: its scheduler's image, nothing while there is none.
session_image() {
  ask daskcluster filterdb --ignore-not-found --output 'jsonpath={.spec.scheduler.spec.containers[0].image}'
}
