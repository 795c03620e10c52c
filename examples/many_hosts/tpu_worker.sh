#!/bin/bash
# On every worker of a Cloud TPU pod slice: a process of `sam-jax` for each of the worker's chips.
# What it is given goes to each of them. From your own machine:
#
#   TPU=my-slice ZONE=us-west4-a WORK=/mnt/shared
#   gcloud compute tpus tpu-vm scp examples/many_hosts/tpu_worker.sh $TPU: --zone=$ZONE --worker=all
#   gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --worker=all \
#     --command="pip install '$WORK/sam_jax[tpu]'"
#   gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --worker=0 \
#     --command="SAM_JAX_CACHE=$WORK/cache JAX_PLATFORMS=cpu sam-jax download vit_h"
#   gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --worker=all \
#     --command="SAM_JAX_CACHE=$WORK/cache bash tpu_worker.sh generate $WORK/photos \
#       --checkpoint vit_h --dtype bfloat16 --format coco-rle --output $WORK/masks --resume"
#
# $WORK is a folder that all workers have, such as a Filestore share, with a checkout of sam_jax.
# After a failure, the last command again does what is left.
set -uo pipefail

metadata() {
  curl --silent --fail --header "Metadata-Flavor: Google" \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

worker=$(metadata agent-worker-number) || exit 1
endpoints=$(metadata worker-network-endpoints) || exit 1
IFS=, read -r -a workers <<<"$endpoints"
# Each is a name, or name:number:address.
coordinator=${workers[0]##*:}
# v4, v5e, v5p and v6e slices of several hosts have four a host.
chips=${CHIPS_PER_HOST:-4}

processes=()
for ((chip = 0; chip < chips; chip++)); do
  # Each is a TPU runtime of its own, with one chip: none waits for another, or ends with it.
  TPU_VISIBLE_CHIPS=$chip TPU_CHIPS_PER_PROCESS_BOUNDS=1,1,1 TPU_PROCESS_BOUNDS=1,1,1 \
    TPU_PROCESS_ADDRESSES=localhost:$((8471 + chip)) TPU_PROCESS_PORT=$((8471 + chip)) \
    CLOUD_TPU_TASK_ID=0 \
    sam-jax "$@" --distributed --coordinator-address "$coordinator:8490" \
    --num-processes $((${#workers[@]} * chips)) --process-id $((worker * chips + chip)) &
  processes+=($!)
done

status=0
for process in "${processes[@]}"; do
  wait "$process" || status=$?
done
exit $status
