#!/usr/bin/env bash
# Everything that needs a GPU, in about ten minutes: `bash analyses/gpu.sh [OUT]`, in a checkout with sinkscope[dev] installed.
# Writes OUT/gpu.log, the benchmark tables with rows of the GPU, and results of a 7B shape at 32k tokens and of a 1B shape.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu}
mkdir -p "$out"
exec > >(tee "$out/gpu.log") 2>&1
python -c 'import torch; print(torch.__version__, torch.cuda.device_count(), torch.cuda.get_device_name(0))' || exit 2

run() { # seconds, then a command; goes on after a failure
    local limit=$1
    shift
    echo "+ $*"
    local start=$SECONDS
    timeout "$limit" "$@" || echo "FAILED with $?: $*"
    echo "($((SECONDS - start)) s)"
}

run 120 python -m pytest -q -m gpu -p no:cacheprovider
run 150 python analyses/benchmark_capture.py --devices cuda --lengths 1024 8192 32768 --repeats 3 --out "$out"
run 60 python analyses/random_model.py 7b "$out/7b"
run 60 python -m sinkscope locate "$out/7b" --text README.md --max-length 512 --out "$out/locate-7b"
run 60 python analyses/random_model.py 1b "$out/1b"
run 120 python -m sinkscope unlearn tiny/npo-backdoor --set "model=$out/1b" --set optimizer.epochs=1 --out "$out/npo-1b"
if [ "$(python -c 'import torch; print(torch.cuda.device_count())')" -gt 1 ]; then
    run 120 accelerate launch --num_processes 2 -m sinkscope unlearn tiny/npo-backdoor --set "model=$out/1b" \
        --set optimizer.epochs=1 --out "$out/npo-1b-2"
fi
