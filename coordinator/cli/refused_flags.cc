// The two tables of refused flags with their reasons.
#include "coordinator/cli/refused_flags.h"

#include <string>
#include <vector>

namespace thermocline {
namespace {

struct Row {
  std::vector<std::string> names;
  bool takes_value;
  const char* reason;
};

constexpr char kGpuPlan[] =
    "what goes on which GPU is planned; say --gpu-device, --vram-budget, --gpu-layers or --plan";
constexpr char kRope[] = "RoPE is taken from the model file";
constexpr char kBinding[] =
    "a worker binds its threads to its NUMA node by itself; limit it with numactl or taskset";
constexpr char kNoMoe[] = "mixtures of experts are not supported in this version";
constexpr char kNoLora[] = "adapters are not supported; merge them into the model file";
constexpr char kNoDraft[] = "speculative decoding is not supported in this version";
constexpr char kLogs[] = "messages go to stderr; use --quiet, --verbose or a redirection";
constexpr char kOneAtATime[] = "requests are served one at a time in this version";
constexpr char kOtherTool[] = "this is another tool's work: build/bin/perplexity";
constexpr char kFilters[] =
    "only --temp, --top-k, --top-p, --min-p and --repeat-penalty choose tokens in this version";
constexpr char kGrammar[] = "output can't be bound to a grammar in this version";
constexpr char kTemplates[] =
    "prompts are taken as they are, without a chat template; write the template's text into -p";
constexpr char kNoShift[] =
    "a full context is never shifted; raise --ctx-size, or give -n -2 to end there";

const Row kFleetRows[] = {
    {{"-ts", "--tensor-split"}, true, kGpuPlan},
    {{"-mg", "--main-gpu"}, true, kGpuPlan},
    {{"-sm", "--split-mode"}, true, kGpuPlan},
    {{"-nommq", "--no-mul-mat-q"}, false, "there is one way to multiply on a GPU"},
    {{"--list-devices"}, false, "use build/bin/gpu_worker --list-devices"},
    {{"-fit", "--fit"}, true, kGpuPlan},
    {{"-fitt", "--fit-target"}, true, kGpuPlan},
    {{"-fitc", "--fit-ctx"}, true, kGpuPlan},
    {{"-ot", "--override-tensor"}, true, "who holds which weights is said by --plan FILE"},
    {{"-cmoe", "--cpu-moe"}, false, kNoMoe},
    {{"-ncmoe", "--n-cpu-moe"}, true, kNoMoe},
    {{"-ncffn", "--n-cpu-ffn"}, true, kGpuPlan},
    {{"--moe-cache-mib"}, true, kNoMoe},
    {{"--rpc"}, true, "workers on other hosts are named in the file given with --plan"},
    {{"-tb", "--threads-batch"}, true, "prompts are computed by the threads of --threads"},
    {{"-ub", "--ubatch-size"}, true, "a step takes up to --batch-size tokens, not divided further"},
    {{"-C", "--cpu-mask"}, true, kBinding},
    {{"-Cr", "--cpu-range"}, true, kBinding},
    {{"--cpu-strict"}, true, kBinding},
    {{"--numa"}, true, kBinding},
    {{"--prio"}, true, "start the program with nice"},
    {{"--poll"}, true, "how long workers spin follows from their threads and the machine's CPUs"},
    {{"--mlock"}, false, "weights lie in workers' own memory, which this version does not lock"},
    {{"-lm", "--load-mode"}, true, "workers always copy their shards into memory of their own"},
    {{"-ctk", "--cache-type-k"}, true, "keys and values have one type: --kv-type f16, f32 or q8_0"},
    {{"-ctv", "--cache-type-v"}, true, "keys and values have one type: --kv-type f16, f32 or q8_0"},
    {{"--override-kv"}, true, "the model file is taken as it is, but for --hidden-activation"},
    {{"--check-tensors"}, false, "shapes and sizes are always checked, values never"},
    {{"-hf", "--hf-repo"}, true, "nothing is fetched from the network; download it, then -m FILE"},
    {{"--rope-scaling"}, true, kRope},
    {{"--rope-scale"}, true, kRope},
    {{"--rope-freq-base"}, true, kRope},
    {{"--rope-freq-scale"}, true, kRope},
    {{"--yarn-orig-ctx"}, true, kRope},
    {{"--yarn-ext-factor"}, true, kRope},
    {{"--yarn-attn-factor"}, true, kRope},
    {{"--yarn-beta-slow"}, true, kRope},
    {{"--yarn-beta-fast"}, true, kRope},
    {{"--lora"}, true, kNoLora},
    {{"--lora-scaled"}, true, kNoLora},
    {{"--lora-base"}, true, kNoLora},
    {{"-md", "--model-draft"}, true, kNoDraft},
    {{"--draft"}, true, kNoDraft},
    {{"--spec-draft-n-max"}, true, kNoDraft},
    {{"-ngld", "--gpu-layers-draft"}, true, kNoDraft},
    {{"-pa", "--p-accept"}, true, kNoDraft},
    {{"-ps", "--p-split"}, true, kNoDraft},
    {{"-np", "--parallel"}, true, kOneAtATime},
    {{"-ns", "--sequences"}, true, kOneAtATime},
    {{"-cb", "--cont-batching"}, false, kOneAtATime},
    {{"-ld", "--logdir"}, true, kLogs},
    {{"--log-file"}, true, kLogs},
    {{"--log-disable"}, false, kLogs},
    {{"--log-jsonl"}, false, kLogs},
    {{"-lv", "--verbosity"}, true, kLogs},
    {{"--completion-bash"}, false, "no completion script is made in this version"},
};

const Row kTextRows[] = {
    {{"--keep"}, true, kNoShift},
    {{"--context-shift"}, false, kNoShift},
    {{"--tfs"}, true, kFilters},
    {{"--typical", "--typical-p"}, true, kFilters},
    {{"--presence-penalty"}, true, kFilters},
    {{"--frequency-penalty"}, true, kFilters},
    {{"--no-penalize-nl"}, false, kFilters},
    {{"--mirostat"}, true, kFilters},
    {{"--mirostat-lr"}, true, kFilters},
    {{"--mirostat-ent"}, true, kFilters},
    {{"-l", "--logit-bias"}, true, "only end tokens can be ruled out: --ignore-eos"},
    {{"--cfg-negative-prompt"}, true, kFilters},
    {{"--cfg-negative-prompt-file"}, true, kFilters},
    {{"--cfg-scale"}, true, kFilters},
    {{"--grammar"}, true, kGrammar},
    {{"--grammar-file"}, true, kGrammar},
    {{"-j", "--json-schema"}, true, kGrammar},
    {{"-jf", "--json-schema-file"}, true, kGrammar},
    {{"-r", "--reverse-prompt"}, true, "a turn ends with an end token, -n or Ctrl-C"},
    {{"--in-prefix"}, true, kTemplates},
    {{"--in-prefix-bos"}, false, kTemplates},
    {{"--in-suffix"}, true, kTemplates},
    {{"--interactive-first"}, false, "-i without a prompt waits for input first"},
    {{"-ins", "--instruct"}, false, kTemplates},
    {{"-cnv", "--conversation"}, false, kTemplates},
    {{"-st", "--single-turn"}, false, kTemplates},
    {{"-sys", "--system-prompt"}, true, kTemplates},
    {{"-sysf", "--system-prompt-file"}, true, kTemplates},
    {{"--jinja"}, false, kTemplates},
    {{"--chat-template"}, true, kTemplates},
    {{"--chat-template-file"}, true, kTemplates},
    {{"--multiline-input"}, false, "a turn of input is one line"},
    {{"--simple-io"}, false, "there is no other way of input to turn off"},
    {{"--verbose-prompt"}, false, "use --verbose"},
    {{"--random-prompt"}, false, "without -p the model starts from its own beginning"},
    {{"--prompt-cache"},
     true,
     "nothing is kept between runs; the coordinator keeps the last prompt"},
    {{"--prompt-cache-all"}, false, "nothing is kept between runs"},
    {{"--prompt-cache-ro"}, false, "nothing is kept between runs"},
    {{"--perplexity"}, false, kOtherTool},
    {{"--ppl-stride"}, true, kOtherTool},
    {{"--chunks"}, true, kOtherTool},
    {{"--hellaswag"}, false, "only perplexity and divergence are measured: build/bin/perplexity"},
    {{"--hellaswag-tasks"}, true, "only perplexity and divergence are measured"},
    {{"--logits-all"}, false, "use build/bin/perplexity --kl-divergence-base FILE"},
};

template <size_t kRows>
void Add(const Row (&rows)[kRows], FlagSet* flags) {
  for (const Row& row : rows) flags->Refused(row.names, row.takes_value, row.reason);
}

}  // namespace

void AddRefusedFleetFlags(FlagSet* flags) { Add(kFleetRows, flags); }

void AddRefusedTextFlags(FlagSet* flags) { Add(kTextRows, flags); }

}  // namespace thermocline
