#!/bin/sh
# An audit as a job array: sbatch --array=1-8 examples/job_array.sh RUN OUT
# Every job computes each eighth shard into OUT, which all of them see; the last to finish merges and writes the report.
#SBATCH --job-name=memloc
#SBATCH --cpus-per-task=4
set -eu
run=$1 out=$2
shift 2
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"  # the same in every job: figures follow it in their last digit
exec memloc audit "$run" --out "$out" --shards "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
