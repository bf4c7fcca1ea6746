#!/usr/bin/env bash
# Kills whole runs with SIGKILL at random moments, lets the same command go on, and holds every artifact and number against those of
# a run that nothing disturbed.
# Usage: runs/kill.sh EXSEARCH MODEL FOLDER [KILLS] [SEED] [study]
# MODEL is a model folder, such as a tiny random one (`exsearch model import crates/model/tests/golden/tiny_llama.gguf --out MODEL`, and
# max_position_embeddings 1500 in its config.json). With `study`, what is killed is a study of two variants, which share parts.
set -euo pipefail
exsearch=$(realpath "$1")
model=$(realpath "$2")
folder=$3
kills=${4:-20}
seed=${5:-0}
what=${6:-run}
mkdir -p "$folder"
folder=$(realpath "$folder")
cd "$folder"

"$exsearch" world --people 60 --train 60 --dev 16 --test 10 --warmup 8 --out world --force --quiet
[ -d index ] || "$exsearch" index world/passages.tsv --out index --quiet
cat >config.toml <<END
model = "$model"
max_tokens = 1200
[data]
index = "index"
train = "world/train.jsonl"
dev = "world/dev.jsonl"
test = [{ name = "test", questions = "world/test.jsonl" }]
warmup = "world/warmup.jsonl"
[agent]
top_k = 2
max_steps = 3
max_turn_tokens = 24
max_answer_tokens = 8
max_dialogue_tokens = 1100
[warmup]
batch_size = 2
[em]
iterations = 2
questions = 16
samples = 2
patience = 0
[train]
batch_size = 2
# Rings at once with a random model, so that the model is rolled back before every iteration.
[health]
on_collapse = "rollback"
max_zero_support_rate = 0.0
END

start() { # OUT
  case $what in
    run) exec "$exsearch" run config.toml --out "$1" --quiet ;;
    study) exec "$exsearch" study weights --only posterior,uniform --seeds 0 --config config.toml --out "$1" --quiet ;;
    *) echo "run or study, not $what" >&2 && exit 2 ;;
  esac
}

# Every file but the lock, times, the page that shows times and what trackers get, who are told of times, too; the run's own path is
# left out of those that hold it.
state() { # OUT
  (cd "$1" && find . -type f ! -name lock ! -name timings.jsonl ! -name report.html ! -path './shared/*' \
    ! -path '*/tensorboard/*' ! -path '*/track/*' | sort |
    while read -r file; do printf '%s %s\n' "$(sed "s|$(basename "$1")|OUT|g" "$file" | sha256sum | cut -c 1-64)" "$file"; done)
}

rm -rf run-whole run-killed-*
began=$(date +%s.%N)
(start run-whole) >whole.txt
secs=$(awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')
state "$folder/run-whole" >whole.state
echo "undisturbed: $secs s, $(wc -l <whole.state) files"

n_kills=0
n_runs=0
while [ "$n_kills" -lt "$kills" ]; do
  n_runs=$((n_runs + 1))
  out=run-killed-$n_runs
  n_here=0
  while true; do
    (start "$out") >killed.txt &
    child=$!
    # Anywhere in a whole run's time; the last kills of a run find less left to do than that, and some come after its end.
    sleep "$(awk -v s="$((seed * 10000 + n_runs * 100 + n_here))" -v t="$secs" 'BEGIN { srand(s); rand(); print rand() * t }')"
    if [ "$n_kills" -lt "$kills" ] && kill -9 "$child" 2>/dev/null; then
      wait "$child" 2>/dev/null || true
      n_kills=$((n_kills + 1))
      n_here=$((n_here + 1))
      echo "kill $n_kills: $out has $(find "$out" -type f 2>/dev/null | wc -l) files"
    else
      wait "$child"
      break
    fi
  done
  # A machine that has become less busy needs less.
  [ "$n_here" -gt 0 ] || [ "$n_kills" -ge "$kills" ] || secs=$(awk -v t="$secs" 'BEGIN { print 0.7 * t }')
  state "$folder/$out" | diff whole.state - >difference.txt || { cat difference.txt && echo "$out differs" && exit 1; }
  sed "s|$out|run-whole|g" killed.txt | diff whole.txt - || { echo "$out says something else" && exit 1; }
  echo "$out: killed $n_here times, every file and number is that of the undisturbed run"
done
echo "$n_kills kills over $n_runs runs: all the same"
