// One run of `main`: a prompt and its continuation, or turns between a person and the model. Keeps
// the tokens so far; the coordinator finds in its KV cache what it has computed of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/cli/console.h"
#include "coordinator/cli/inference_client.h"
#include "coordinator/cli/main_options.h"
#include "coordinator/cli/timings.h"

namespace thermocline {

class Conversation {
 public:
  // All must outlive the conversation.
  Conversation(const MainOptions* options, InferenceClient* client, Console* console)
      : options_(options), client_(client), console_(console) {}

  // Cancelled when a signal ended it; errors of the engine and of the console.
  absl::Status Run();

  const Timings& timings() const { return timings_; }  // load_ms is the caller's

 private:
  absl::Status RunPrompt();
  absl::Status TakeTurns();
  // What an answer's end means with -i: a first Ctrl-C is no error but ends the answer.
  static absl::Status TurnBack(const absl::Status& status);
  // Appends the text's tokens to those so far.
  absl::Status Append(const std::string& text, bool is_prompt);
  // Prints text of the answer; in front of the first, the prompt.
  absl::Status Show(const std::string& text);
  // Continues the tokens so far, printing as text comes.
  absl::Status Generate();

  const MainOptions* options_;
  InferenceClient* client_;
  Console* console_;
  std::vector<int32_t> tokens_;  // prompt, answers and lines so far; no end tokens
  std::string unseen_prompt_;    // to be printed when the answer begins: before, it may be refused
  int64_t n_computed_ = 0;       // of tokens_, at the last answer
  Timings timings_;
};

}  // namespace thermocline
