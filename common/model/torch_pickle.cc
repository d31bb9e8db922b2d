// A stack machine for the few pickle opcodes (protocol 2) that a saved tensor consists of. Source:
// Python's documentation of pickletools. Everything is bounded: bytes, the stack, nesting.
#include "common/model/torch_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "common/gguf/byte_cursor.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

// A saved tensor's pickle has about 200 bytes, 9 values at once on the stack, tuples two deep. The
// bounds keep what copies of tuples can add up to small.
constexpr size_t kMaxBytes = 4096;
constexpr size_t kMaxStack = 16;
constexpr int kMaxDepth = 2;

constexpr char kRebuildTensor[] = "torch._utils _rebuild_tensor_v2";
constexpr char kOrderedDict[] = "collections OrderedDict";  // of hooks, always empty
constexpr char kTorch[] = "torch ";                         // before a storage's class

struct Value {
  enum Kind { kOther, kMark, kInt, kText, kGlobal, kTuple, kStorage, kTensor };
  Kind kind = kOther;
  int64_t integer = 0;
  std::string text = {};  // of kGlobal: module, space, name
  std::vector<Value> items = {};
  int depth = 0;            // of kTuple
  TorchTensor tensor = {};  // of kTensor; of kStorage the fields of its storage
};

absl::Status Wrong(const std::string& what) {
  return absl::InvalidArgumentError("the pickle " + what);
}

absl::StatusOr<std::vector<int64_t>> IntsOf(const Value& tuple) {
  std::vector<int64_t> ints;
  for (const Value& item : tuple.items) {
    if (item.kind != Value::kInt) return Wrong("has a shape that does not consist of numbers");
    ints.push_back(item.integer);
  }
  return ints;
}

class Machine {
 public:
  explicit Machine(absl::Span<const uint8_t> bytes) : cursor_(bytes) {}

  absl::StatusOr<TorchTensor> Run() {
    while (true) {
      uint8_t opcode;
      if (!cursor_.Read(&opcode)) return Cut();
      if (opcode == '.') break;
      RETURN_IF_ERROR(Step(opcode));
      if (stack_.size() > kMaxStack) return Wrong("needs a larger stack than a tensor's does");
    }
    if (stack_.size() == 1 && stack_[0].kind == Value::kTensor) return stack_[0].tensor;
    return Unlike("does not hold one tensor");
  }

 private:
  static absl::Status Cut() { return Wrong("is cut off"); }
  static absl::Status Unlike(const std::string& what) {
    return absl::UnimplementedError(
        fmt::format("the pickle {}; only one plain tensor, saved by itself, is read", what));
  }

  absl::Status Step(uint8_t opcode) {
    switch (opcode) {
      case 0x80:  // PROTO
        return Skip<uint8_t>();
      case 'c':  // GLOBAL
        return PushGlobal();
      case 'X':  // BINUNICODE
        return PushText();
      case 'K':  // BININT1
        return PushInt<uint8_t>();
      case 'M':  // BININT2
        return PushInt<uint16_t>();
      case 'J':  // BININT
        return PushInt<int32_t>();
      case 'N':   // NONE
      case '}':   // EMPTY_DICT
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        return Push({});
      case '(':  // MARK
        return Push({.kind = Value::kMark});
      case ')':  // EMPTY_TUPLE
        return PushTuple(stack_.size());
      case 0x85:  // TUPLE1
      case 0x86:  // TUPLE2
      case 0x87:  // TUPLE3
        return PopTuple(opcode - size_t{0x84});
      case 't':  // TUPLE
        return TupleFromMark();
      case 'q':  // BINPUT
        return Put<uint8_t>();
      case 'r':  // LONG_BINPUT
        return Put<uint32_t>();
      case 'h':  // BINGET
        return Get<uint8_t>();
      case 'j':  // LONG_BINGET
        return Get<uint32_t>();
      case 'Q':  // BINPERSID
        return LoadStorage();
      case 'R':  // REDUCE
        return Reduce();
      default:
        return Unlike(fmt::format("has opcode 0x{:02x}", opcode));
    }
  }

  absl::Status Push(Value value) {
    stack_.push_back(std::move(value));
    return absl::OkStatus();
  }
  template <typename T>
  absl::Status Skip() {
    T unused;
    return cursor_.Read(&unused) ? absl::OkStatus() : Cut();
  }
  template <typename T>
  absl::Status PushInt() {
    T value;
    if (!cursor_.Read(&value)) return Cut();
    return Push({.kind = Value::kInt, .integer = value});
  }
  absl::Status PushText() {
    uint32_t n_bytes;
    Value value = {.kind = Value::kText};
    if (!cursor_.Read(&n_bytes) || !cursor_.ReadText(n_bytes, &value.text)) return Cut();
    return Push(std::move(value));
  }
  absl::Status PushGlobal() {  // two lines: module, name
    std::string text;
    for (int n_lines = 0; n_lines < 2;) {
      char c;
      if (!cursor_.Read(&c)) return Cut();
      if (c != '\n') {
        text += c;
      } else if (++n_lines == 1) {
        text += ' ';
      }
    }
    const bool is_storage = text.starts_with(kTorch) && text.ends_with("Storage");
    if (!is_storage && text != kRebuildTensor && text != kOrderedDict) {
      return Unlike("names " + Quoted(text));
    }
    return Push({.kind = Value::kGlobal, .text = std::move(text)});
  }

  // The values from `begin` to the top become one tuple.
  absl::Status PushTuple(size_t begin) {
    Value tuple = {.kind = Value::kTuple};
    for (size_t i = begin; i < stack_.size(); ++i) {
      tuple.depth = std::max(tuple.depth, stack_[i].depth);
      tuple.items.push_back(std::move(stack_[i]));
    }
    stack_.resize(begin);
    if (++tuple.depth > kMaxDepth) return Unlike("nests tuples deeper than a tensor does");
    return Push(std::move(tuple));
  }
  absl::Status PopTuple(size_t n) {
    if (stack_.size() < n) return Wrong("takes more values than there are");
    return PushTuple(stack_.size() - n);
  }
  absl::Status TupleFromMark() {
    size_t mark = stack_.size();
    while (mark > 0 && stack_[mark - 1].kind != Value::kMark) --mark;
    if (mark == 0) return Wrong("ends a tuple that was not begun");
    stack_.erase(stack_.begin() + static_cast<std::ptrdiff_t>(mark) - 1);
    return PushTuple(mark - 1);
  }

  template <typename T>
  absl::Status Put() {
    T index;
    if (!cursor_.Read(&index)) return Cut();
    if (stack_.empty()) return Wrong("remembers a value that is not there");
    memo_[index] = stack_.back();
    return absl::OkStatus();
  }
  template <typename T>
  absl::Status Get() {
    T index;
    if (!cursor_.Read(&index)) return Cut();
    const auto it = memo_.find(index);
    if (it == memo_.end()) return Wrong("recalls a value that it did not remember");
    return Push(it->second);
  }

  // ("storage", class, key, device, elements): what torch.save puts in place of the data.
  absl::Status LoadStorage() {
    if (stack_.empty()) return Wrong("loads a storage that is not there");
    const Value id = std::move(stack_.back());
    stack_.pop_back();
    using enum Value::Kind;
    const std::vector<Value>& items = id.items;
    if (items.size() != 5 || items[0].text != "storage" || items[1].kind != kGlobal ||
        !items[1].text.starts_with(kTorch) || items[2].kind != kText || items[4].kind != kInt) {
      return Wrong("has a storage that is none of torch's");
    }
    Value storage = {.kind = kStorage};
    storage.tensor.storage_class = items[1].text.substr(sizeof(kTorch) - 1);
    storage.tensor.storage_key = items[2].text;
    storage.tensor.n_storage = items[4].integer;
    return Push(std::move(storage));
  }

  absl::Status Reduce() {
    if (stack_.size() < 2) return Wrong("calls a function that is not there");
    const Value arguments = std::move(stack_.back());
    stack_.pop_back();
    const Value function = std::move(stack_.back());
    stack_.pop_back();
    if (function.kind != Value::kGlobal || arguments.kind != Value::kTuple) {
      return Wrong("calls what is no function");
    }
    if (function.text == kOrderedDict) return Push({});
    if (function.text == kRebuildTensor) return RebuildTensor(arguments.items);
    return Unlike("calls " + Quoted(function.text));
  }

  // (storage, offset, shape, strides, requires_grad, hooks)
  absl::Status RebuildTensor(const std::vector<Value>& items) {
    using enum Value::Kind;
    if (items.size() < 4 || items[0].kind != kStorage || items[1].kind != kInt ||
        items[2].kind != kTuple || items[3].kind != kTuple) {
      return Wrong("makes a tensor of what is none");
    }
    Value value = {.kind = kTensor, .tensor = items[0].tensor};
    value.tensor.offset = items[1].integer;
    ASSIGN_OR_RETURN(value.tensor.shape, IntsOf(items[2]));
    ASSIGN_OR_RETURN(value.tensor.strides, IntsOf(items[3]));
    return Push(std::move(value));
  }

  ByteCursor cursor_;
  std::vector<Value> stack_;
  std::map<uint32_t, Value> memo_;
};

}  // namespace

absl::StatusOr<TorchTensor> ReadTorchPickle(absl::Span<const uint8_t> bytes) {
  if (bytes.size() > kMaxBytes) {
    return absl::UnimplementedError(fmt::format(
        "the pickle has {} bytes, a plain tensor's has fewer than {}", bytes.size(), kMaxBytes));
  }
  return Machine(bytes).Run();
}

}  // namespace thermocline
