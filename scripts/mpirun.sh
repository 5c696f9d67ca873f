#!/usr/bin/env bash
# An example: one run on several machines that are reached by ssh. Adapt the list of machines and the network.
#
#   scripts/mpirun.sh lit.toml [--resume]
#
# Every machine needs the same build of dualenc (feature `mpi`), the same Open MPI, and config, data and weights under
# the same paths. Only the machine of rank 0 writes `run.dir`; the first machine of the list has it.
set -euo pipefail
config=$1
shift

# A machine a line, with as many slots as it has GPUs; one slot for a machine that computes on its CPU.
hostfile=$(mktemp)
trap 'rm -f "$hostfile"' EXIT
cat > "$hostfile" << 'EOF'
node1 slots=4
node2 slots=4
EOF

# --bind-to none: a process uses several cores, to load images if not to compute. The cores of a machine are divided
#   among its processes.
# btl_tcp_if_include: the network between the machines. Without it, Open MPI tries all, those of containers too.
# odls_base_sigkill_timeout: on Ctrl-C, mpirun asks the processes to stop after this time, in seconds, and kills them
#   after as much again. A step and a checkpoint have to fit. mpirun always waits for all of them. To stop sooner, send
#   SIGTERM to one of the processes.
mpirun --hostfile "$hostfile" --bind-to none \
  --mca btl_tcp_if_include eth0 \
  --mca odls_base_sigkill_timeout 60 \
  dualenc train --config "$config" --device cuda "$@"
