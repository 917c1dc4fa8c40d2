# shellcheck shell=bash disable=SC2034,SC2154 # variables of common.sh and of run-batch
# One DaskJob from the outside: what run-batch does with each. Every wait has a bound and says what it waits for.

pause=${PAUSE:-5}
runner_timeout=${RUNNER_TIMEOUT:-120}   # until the operator has made the runner's pod
start_timeout=${START_TIMEOUT:-1200}    # until the runner starts; its `wait` gives up before (filterdb.start-timeout)
gone_timeout=${GONE_TIMEOUT:-90}        # until a pod that is being deleted has gone; its node is lost then
remove_timeout=${REMOVE_TIMEOUT:-600}   # until everything of a job has gone
events_every=${EVENTS_EVERY:-60}

say() { echo "filterdb-$1: $2" >&2; }

# job_state JOB : sets job_uid (nothing: no such DaskJob), job_status, job_deleted, job_image.
job_state() {
  local text
  text=$(ask daskjob "filterdb-$1" --ignore-not-found --output \
    'jsonpath={.metadata.uid}|{.status.jobStatus}|{.metadata.deletionTimestamp}|{.spec.job.spec.containers[0].image}')
  IFS='|' read -r job_uid job_status job_deleted job_image <<<"$text"
}

# pod_state JOB : of the runner's pod, sets phase (nothing: no pod), pod_uid, pod_deleted, reason, waited and exited, the
# exit codes of its containers.
pod_state() {
  local text
  text=$(ask pod "filterdb-$1-runner" --ignore-not-found --output 'jsonpath={.status.phase}|{.metadata.uid}|'\
'{.metadata.deletionTimestamp}|{.status.reason}|'\
'{.status.initContainerStatuses[?(@.name=="wait")].state.terminated.exitCode}|'\
'{.status.containerStatuses[?(@.name=="runner")].state.terminated.exitCode}')
  IFS='|' read -r phase pod_uid pod_deleted reason waited exited <<<"$text"
}

# remove JOB [force] : the DaskJob with all that belongs to it. In the foreground: the operator holds a DaskCluster by a
# finalizer, and without the operator its pods would run on.
remove() {
  run "${kube[@]}" delete "daskjob/filterdb-$1" "daskcluster/filterdb-$1" "poddisruptionbudget/filterdb-$1" \
    --ignore-not-found --cascade=foreground --wait=false
  if [ -n "${2:-}" ]; then # its kubelet will not say that the pod has ended
    run "${kube[@]}" delete pod "filterdb-$1-runner" --ignore-not-found --grace-period=0 --force --wait=false
  fi
  run "${kube[@]}" wait --for=delete --timeout="${remove_timeout}s" \
    "pod/filterdb-$1-runner" "daskcluster/filterdb-$1" "daskjob/filterdb-$1" ||
    die "filterdb-$1: expected it to be deleted within $remove_timeout s, it is not; does the Dask operator run? \
kubectl --namespace $operator get pods" 74
}

# adopt JOB UID : the runner's pod owns the job's cluster from now on, so that Kubernetes deletes the cluster when the pod
# goes, however it goes. The operator only acts on a runner that ends; it takes no idleTimeout for a job's cluster
# (2026.3.0 drops it), and a scheduler that ends by its own --idle-timeout would be started again by its Deployment.
adopt() {
  run "${kube[@]}" patch daskcluster "filterdb-$1" --type merge --patch \
    "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"filterdb-$1-runner\",\"uid\":\"$2\"}]}}" \
    >/dev/null
}

# start_log JOB : prints the runner's log meanwhile, or goes on with it where the connection was lost.
start_log() {
  if [ -z "$log_pid" ]; then
    "${kube[@]}" logs --follow "filterdb-$1-runner" --container runner &
    log_pid=$!
  elif ! kill -0 "$log_pid" 2>/dev/null; then
    "${kube[@]}" logs --follow "filterdb-$1-runner" --container runner --since-time="$log_seen" &
    log_pid=$!
  fi
  log_seen=$(date -u +%FT%TZ)
}

# end_log JOB : the log to its end, which takes 10 seconds at most once the container has ended.
end_log() {
  local end=$((SECONDS + 10))
  if [ -z "$log_pid" ]; then
    [ -z "$exited" ] || "${kube[@]}" logs --request-timeout=60s "filterdb-$1-runner" --container runner || true
    return 0
  fi
  while kill -0 "$log_pid" 2>/dev/null && [ "$SECONDS" -lt "$end" ]; do sleep 0.2; done
  kill "$log_pid" 2>/dev/null || true
  log_pid=
}

# follow JOB : waits for the runner, prints its log; sets `code`, and `force` when its pod does not go by itself.
follow() {
  local last=none begun=$SECONDS told_at=$SECONDS deleted_at='' adopted='' seen=''
  code='' force='' log_pid=''
  while [ -z "$code" ]; do
    [ -n "$seen" ] || job_state "$1" # before the pod: a status of ClusterCreated means that there was one
    pod_state "$1"
    [ "$phase" = "$last" ] || say "$1" "${phase:-no runner yet}"
    if [ "$phase" != "$last" ] && [ -n "$phase" ]; then begun=$SECONDS; fi
    last=$phase
    if [ -n "$pod_uid" ]; then seen=1; fi
    if [ -n "$pod_uid" ] && [ "$adopted" != "$pod_uid" ] && adopt "$1" "$pod_uid"; then adopted=$pod_uid; fi
    case $phase in
      Running) start_log "$1" ;;
      Succeeded | Failed)
        end_log "$1"
        exit_code "$1"
        ;;
      '') no_pod "$1" "$seen" "$begun" ;;
      *)
        [ $((SECONDS - begun)) -lt "$start_timeout" ] || give_up "$1" "the runner is $phase" "$start_timeout" \
          "kubectl --namespace $namespace describe pod filterdb-$1-runner tells why"
        ;;
    esac
    if [ -n "$pod_deleted" ] && [ -z "$code" ]; then
      deleted_at=${deleted_at:-$SECONDS}
      if [ $((SECONDS - deleted_at)) -ge "$gone_timeout" ]; then
        say "$1" "its runner is being deleted since $gone_timeout s; the node does not answer"
        code=75 force=1
      fi
    fi
    if [ -z "$code" ] && [ "$phase" != Running ] && [ $((SECONDS - told_at)) -ge "$events_every" ]; then
      say "$1" "${phase:-no runner} since $((SECONDS - begun)) s"
      events "filterdb-$1"
      told_at=$SECONDS
    fi
    [ -n "$code" ] || sleep "$pause"
  done
  [ -z "$log_pid" ] || kill "$log_pid" 2>/dev/null || true
}

# no_pod JOB SEEN BEGUN : sets `code` when the runner has gone, gives up when it does not come.
no_pod() {
  if [ -n "$2" ]; then
    say "$1" "its runner has gone, with its node or by hand"
    code=75
  elif [ -z "$job_uid" ]; then
    die "filterdb-$1: somebody has deleted the DaskJob; call this again" 75
  elif [[ $job_status == ClusterCreated || $job_status == Running ]]; then
    say "$1" "its runner has gone before it was seen"
    code=75
  elif [ $((SECONDS - $3)) -ge "$runner_timeout" ]; then
    give_up "$1" "no runner" "$runner_timeout" "expected the Dask operator to make it; kubectl --namespace $operator get pods"
  fi
}

# give_up JOB WHAT SECONDS REMEDY : the job is deleted, so that it does not start when nobody waits for it any more.
give_up() {
  events "filterdb-$1"
  run "${kube[@]}" delete "daskjob/filterdb-$1" "daskcluster/filterdb-$1" --ignore-not-found --cascade=foreground --wait=false
  die "filterdb-$1: $2 within $3 s (events above); $4" 74
}

# exit_code JOB : sets `code` from the pod. What `wait` reports stays wrong when the job is started again.
exit_code() {
  code=$exited
  [ -z "$code" ] || return 0
  case ${waited:-0} in
    0 | 137 | 143)
      say "$1" "its runner could not end by itself${reason:+ ($reason)}" # evicted, or out of time
      code=75
      ;;
    *)
      "${kube[@]}" logs --request-timeout=60s "filterdb-$1-runner" --container wait >&2 || true
      events "filterdb-$1"
      say "$1" "the container wait failed with exit code $waited (its log is above)"
      case $waited in 2 | 74) code=$waited ;; *) code=70 ;; esac
      ;;
  esac
}
