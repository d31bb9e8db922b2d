// Flags that users of llama.cpp and PowerInfer bring along and that are not honoured here: each is
// refused with a reason, none is ignored. When one becomes real, its row leaves the table.
#pragma once

#include "common/util/flags.h"

namespace thermocline {

// Flags about the model, the machine and how the fleet computes: for every program.
void AddRefusedFleetFlags(FlagSet* flags);
// Flags about prompts, sampling and conversation: for main.
void AddRefusedTextFlags(FlagSet* flags);

}  // namespace thermocline
