// Escape sequences in prompts, as llama.cpp reads them.
#pragma once

#include <string>
#include <string_view>

namespace thermocline {

// \n \r \t \' \" \\ and \xHH become what they stand for; any other backslash stays as it is.
std::string Unescape(std::string_view text);

}  // namespace thermocline
