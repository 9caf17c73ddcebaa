#!/usr/bin/env bash
#SBATCH --job-name=planil --time=04:00:00 --open-mode=append
#SBATCH --requeue --signal=B:USR1@120
#
# A training as a batch job of Slurm, which goes on until it is done:
#
#     sbatch examples/preempted.sh --method=mpail2 --env=gym/Hopper \
#         --demos=demos/hopper4.npz --logdir=runs/hopper
#
# Slurm sends USR1 to this shell 120 seconds before the time is up, and TERM where another
# job takes the place. The shell forwards it. The training ends its epoch, saves it and
# exits with 128 + the signal's number. Then the job is queued again, and --resume goes on
# bit for bit as if nothing had happened. An epoch must be shorter than the 120 seconds.
set -u

${PLANIL:-planil} train --resume "$@" &
training=$!
for signal in USR1 USR2 TERM HUP; do
    trap "kill -s $signal $training" "$signal"
done

wait "$training"
code=$?
while kill -0 "$training" 2> /dev/null; do # the wait ended by a trap: the training goes on
    wait "$training"
    code=$?
done

if ((code >= 128)) && [[ -n ${SLURM_JOB_ID:-} ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
