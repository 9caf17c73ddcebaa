#!/usr/bin/env bash
# Trains under a machine that takes the process away every few seconds, as a batch system
# does, and goes on until training is done. Its end equals that of an undisturbed training,
# bit for bit.
#
#     bash examples/preempted.sh runs/preempted --method=bc --env=point_mass --demos=demos.npz
#
# SIGNALS are sent in turn, EVERY so many seconds. Exit codes from 128 on mean "stopped by a
# signal, resume me"; any other code is an end.
set -u
logdir=$1
shift
read -ra signals <<< "${SIGNALS:-USR1 TERM HUP USR2}"
planil=${PLANIL:-planil}

for ((turn = 0; turn < ${TURNS:-100}; turn++)); do
    $planil train --logdir="$logdir" --resume "$@" &
    training=$!
    # As long as there is a signal to send, this sends the next one after a while.
    signal=${signals[turn % ${#signals[@]}]}
    (sleep "${EVERY:-20}" && kill -s "$signal" "$training") 2> /dev/null &
    clock=$!
    wait "$training"
    code=$?
    kill "$clock" 2> /dev/null
    if ((code < 128)); then
        exit "$code"
    fi
    echo "stopped by SIG$signal with code $code; resuming" >&2
done
echo "not done after $turn turns" >&2
exit 1
