// Makes text from files and peers fit for one line of an error message. No formatting beyond that.
#pragma once

#include <string>

namespace thermocline {

// Quotes the text; whatever is not printable ASCII becomes an escape, and what is beyond 80 bytes
// becomes "...".
std::string Quoted(const std::string& text);

}  // namespace thermocline
