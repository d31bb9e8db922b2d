// What is broken in each corpus file. Files are a few KB at most.
#include "tests/fuzz/gguf_corpus.h"

#include <algorithm>
#include <utility>

#include "common/util/check.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr uint64_t kHuge = uint64_t{1} << 62;
constexpr uint32_t kF32 = 0;

TinyLlama Seed() {
  TinyLlama model;
  model.n_layers = 1;
  model.d_model = 2;
  model.d_ff = 4;
  model.n_heads = 2;
  model.n_kv_heads = 1;
  model.d_head = 2;
  model.n_vocab = 4;
  model.type = TensorType::kF16;
  model.rope_freqs = true;
  return model;
}

class Corpus {
 public:
  void Add(const std::string& name, Bytes bytes, const std::string& error) {
    files.push_back({name + ".gguf", std::move(bytes), error});
  }
  // The seed with one key or tensor changed.
  template <typename Change>
  void Changed(const std::string& name, Change&& change, const std::string& error) {
    GgufBuilder builder = Seed().Builder();
    change(builder);
    Add(name, builder.Build(), error);
  }
  std::vector<CorpusFile> files;
};

ByteWriter Header(uint64_t n_tensors, uint64_t n_keys) {
  ByteWriter writer;
  writer.PutText("GGUF").Put(uint32_t{3}).Put(n_tensors).Put(n_keys);
  return writer;
}

void PutTensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
               uint64_t offset, ByteWriter* writer) {
  writer->PutString(name).Put(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) writer->Put(dim);
  writer->Put(type).Put(offset);
}

// A file of one tensor and 256 bytes of data.
Bytes OneTensor(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  ByteWriter writer = Header(1, 0);
  PutTensor("weights", dims, type, offset, &writer);
  return writer.PadTo(32).PutBytes(Bytes(256)).bytes();
}

Bytes TwoTensors(const std::string& first, const std::string& second, uint64_t second_offset,
                 uint32_t type = kF32) {
  ByteWriter writer = Header(2, 0);
  PutTensor(first, {16}, type, 0, &writer);
  PutTensor(second, {16}, type, second_offset, &writer);
  return writer.PadTo(32).PutBytes(Bytes(256)).bytes();
}

// A file of one key; `value` follows the kind.
ByteWriter OneKey(const std::string& name, GgufKind kind) {
  ByteWriter writer = Header(0, 1);
  writer.PutString(name).Put(kind);
  return writer;
}

void AddWhole(Corpus* corpus) {
  corpus->Add("ok_model_v3", Seed().Builder().Build(), "");
  corpus->Add("ok_model_v2", Seed().Builder().Version(2).Build(), "");
  corpus->Add("ok_model_powerinfer_magic", Seed().Builder().Magic("PWRI").Build(), "");
  corpus->Add("ok_model_alignment_8", Seed().Builder().Alignment(8).Build(), "");
  TinyLlama tied = Seed();
  tied.tied = true;
  corpus->Add("ok_model_tied", tied.Builder().Build(), "");
  TinyLlama bamboo = Seed();
  bamboo.architecture = "bamboo";
  bamboo.powerinfer = true;
  bamboo.predictor_rank = 3;
  corpus->Add("ok_model_powerinfer_bamboo", bamboo.Builder().Build(), "");

  GgufBuilder types;  // a block of each type that is computed
  types.String("general.architecture", "types");
  for (const TypeInfo& info : kTensorTypes) {
    types.Tensor(info.name, info.type, {info.block_size},
                 RandomBlocks(info.type, info.block_size, 1, 1));
  }
  corpus->Add("architecture_unknown", types.Build(), "architecture 'types' is not computed");
}

void AddCuts(Corpus* corpus) {
  const Bytes whole = Seed().Builder().Build();
  const auto cut = [&](const char* name, size_t n_bytes, const char* error) {
    corpus->Add(std::string("cut_") + name, Bytes(whole.begin(), whole.begin() + n_bytes), error);
  };
  const auto end_of = [&](const std::string& text) {  // the byte after its first occurrence
    const auto it = std::search(whole.begin(), whole.end(), text.begin(), text.end());
    THERMOCLINE_CHECK(it != whole.end());
    return static_cast<size_t>(it - whole.begin()) + text.size();
  };
  const size_t tokens = end_of("tokenizer.ggml.tokens");
  const size_t model = end_of("tokenizer.ggml.model");
  const size_t down = end_of("blk.0.ffn_down.weight");
  cut("everything", 0, "is empty");
  cut("magic", 3, "header: the magic");
  cut("version", 6, "header: the version");
  cut("tensor_count", 12, "header: the count of tensors");
  cut("key_count", 20, "header: the count of keys");
  cut("keys", 24, "keys do not fit in the 0 bytes left");
  cut("key_name_length", model + 21, "the name's length needs 8 bytes");
  cut("key_name", tokens - 5, "the name needs 21 bytes");
  cut("key_kind", tokens + 2, "key 'tokenizer.ggml.tokens': the value's kind");
  cut("key_value", end_of("llama.vocab_size") + 6, "key 'llama.vocab_size': the value");
  cut("string_length", model + 8, "key 'tokenizer.ggml.model': a string's length");
  cut("string", model + 14, "key 'tokenizer.ggml.model': a string needs 5 bytes");
  cut("array_kind", tokens + 6, "the elements' kind");
  cut("array_count", tokens + 12, "the array's count");
  cut("array", tokens + 30, "'tokenizer.ggml.tokens': 4 elements do not fit");
  cut("tensor_table", end_of("add_bos_token") + 5, "tensor table: 13 tensors do not fit");
  cut("tensor_dim_count", down + 2, "the count of dimensions");
  cut("tensor_dims", down + 8, "'blk.0.ffn_down.weight': a dimension");
  cut("tensor_type", down + 22, "'blk.0.ffn_down.weight': the type");
  cut("tensor_offset", down + 28, "'blk.0.ffn_down.weight': the offset");
  cut("padding", Seed().Builder().BuildHeader().size() + 1,
      "tensor data: tensor 'token_embd.weight' needs 16 bytes");
  cut("data", whole.size() - 1, "tensor data: tensor 'blk.0.ffn_down.weight' needs 16 bytes");
}

void AddBrokenHeaders(Corpus* corpus) {
  corpus->Add("header_not_gguf",
              Seed()
                  .Builder()
                  .Magic("\x7f"
                         "ELF")
                  .Build(),
              "not a GGUF file");
  corpus->Add("header_old_ggml", Seed().Builder().Magic("lmgg").Build(), "not a GGUF file");
  corpus->Add("header_version_0", Seed().Builder().Version(0).Build(), "GGUF version 0");
  corpus->Add("header_version_1", Seed().Builder().Version(1).Build(), "GGUF version 1");
  corpus->Add("header_version_4", Seed().Builder().Version(4).Build(), "GGUF version 4");
  corpus->Add("header_big_endian", Seed().Builder().Version(0x03000000).Build(), "big-endian");
  corpus->Add("header_huge_key_count", Header(0, kHuge).PutBytes(Bytes(64)).bytes(),
              "keys do not fit");
  corpus->Add("header_max_key_count", Header(0, ~uint64_t{0}).PutBytes(Bytes(64)).bytes(),
              "keys do not fit");
  corpus->Add("header_huge_tensor_count", Header(kHuge, 0).PutBytes(Bytes(64)).bytes(),
              "tensors do not fit");
  // The product with an entry's size wraps around to a small number.
  corpus->Add("header_wrapping_tensor_count",
              Header(~uint64_t{0} / 33 + 1, 0).PutBytes(Bytes(64)).bytes(), "tensors do not fit");
}

void AddBrokenKeys(Corpus* corpus) {
  corpus->Add("key_empty_name", OneKey("", GgufKind::kUint8).Put(uint64_t{1}).bytes(),
              "has no name");
  corpus->Add("key_long_name", OneKey(std::string(256, 'k'), GgufKind::kUint8).Put('1').bytes(),
              "name of 256 bytes");
  corpus->Add("key_huge_name", Header(0, 1).Put(kHuge).PutBytes(Bytes(64)).bytes(),
              "name of 4611686018427387904 bytes");
  corpus->Add("key_newline_in_name", OneKey("a\nb", GgufKind::kUint8).Put('1').bytes(),
              "control characters: 'a\\nb'");
  corpus->Add("key_unknown_kind", OneKey("key", GgufKind{13}).Put(uint64_t{1}).bytes(), "kind 13");
  corpus->Add("key_bad_bool", OneKey("key", GgufKind::kBool).Put(uint8_t{2}).bytes(), "bool of 2");
  corpus->Add("key_huge_string", OneKey("key", GgufKind::kString).Put(kHuge).bytes(),
              "a string needs 4611686018427387904 bytes");
  corpus->Add("key_max_string", OneKey("key", GgufKind::kString).Put(~uint64_t{0}).bytes(),
              "a string needs 18446744073709551615 bytes");
  const auto array = [](GgufKind kind, uint64_t count) {
    return OneKey("key", GgufKind::kArray).Put(kind).Put(count).PutBytes(Bytes(64)).bytes();
  };
  corpus->Add("key_huge_array", array(GgufKind::kUint8, kHuge), "elements do not fit");
  corpus->Add("key_wrapping_array", array(GgufKind::kUint64, (uint64_t{1} << 61) + 1),
              "elements do not fit");
  corpus->Add("key_huge_string_array", array(GgufKind::kString, kHuge), "elements do not fit");
  corpus->Add("key_nested_array", array(GgufKind::kArray, 1), "arrays in an array");
  corpus->Add("key_unknown_array_kind", array(GgufKind{99}, 1), "kind 99");
  corpus->Add(
      "key_bad_bool_in_array",
      OneKey("key", GgufKind::kArray).Put(GgufKind::kBool).Put(uint64_t{1}).Put('!').bytes(),
      "bool of 33");
  corpus->Add(
      "key_string_past_end_in_array",
      OneKey("key", GgufKind::kArray).Put(GgufKind::kString).Put(uint64_t{1}).Put(kHuge).bytes(),
      "a string needs");
  ByteWriter twice = Header(0, 2);
  for (int i = 0; i < 2; ++i) twice.PutString("key").Put(GgufKind::kUint8).Put(uint8_t{1});
  corpus->Add("key_twice", twice.bytes(), "key 'key' is there twice");
  for (const uint32_t alignment : {0u, 4u, 24u, 1u << 22, 1u << 31}) {
    corpus->Add("alignment_" + std::to_string(alignment),
                OneKey("general.alignment", GgufKind::kUint32).Put(alignment).bytes(),
                "key 'general.alignment' is " + std::to_string(alignment));
  }
  corpus->Add("alignment_string",
              OneKey("general.alignment", GgufKind::kString).PutString("32").bytes(),
              "key 'general.alignment' holds a string");
}

void AddBrokenTensors(Corpus* corpus) {
  corpus->Add("tensor_no_dims", OneTensor({}, kF32, 0), "0 dimensions");
  corpus->Add("tensor_5_dims", OneTensor({1, 1, 1, 1, 1}, kF32, 0), "5 dimensions");
  corpus->Add("tensor_zero_dim", OneTensor({4, 0}, kF32, 0), "impossible dimension 1 (0)");
  corpus->Add("tensor_negative_dim", OneTensor({~uint64_t{0}}, kF32, 0),
              "impossible dimension 0 (18446744073709551615)");
  corpus->Add("tensor_dims_overflow", OneTensor({uint64_t{1} << 32, uint64_t{1} << 32, 4}, kF32, 0),
              "impossible dimension 1");
  corpus->Add("tensor_bytes_overflow", OneTensor({kHuge}, kF32, 0), "more than any file can hold");
  corpus->Add("tensor_end_overflow", OneTensor({uint64_t{1} << 61}, kF32, uint64_t{1} << 63),
              "impossible offset 9223372036854775808");
  corpus->Add("tensor_part_of_a_block", OneTensor({33}, 8, 0), "no multiple of Q8_0's blocks");
  corpus->Add("tensor_unaligned_offset", OneTensor({4}, kF32, 4),
              "offset 4, which is no multiple of the alignment 32");
  corpus->Add("tensor_offset_past_end", OneTensor({4}, kF32, 4096), "truncated in the tensor data");
  corpus->Add("tensor_max_offset", OneTensor({4}, kF32, ~uint64_t{31}), "impossible offset");
  corpus->Add("tensor_too_large", OneTensor({1 << 20}, kF32, 0), "needs 4194304 bytes");
  corpus->Add("tensor_unknown_type_past_end", OneTensor({4}, 77, 4096),
              "truncated in the tensor data");
  corpus->Add("tensor_unknown_type_at_end", OneTensor({4}, 77, 256),
              "'weights' needs 1 bytes at offset 320, the file ends at 320");
  corpus->Add("tensor_twice", TwoTensors("weights", "weights", 64),
              "tensor 'weights' is there twice");
  corpus->Add("tensor_overlap", TwoTensors("first", "second", 32),
              "tensor 'second' overlaps tensor 'first'");
  corpus->Add("tensor_same_offset", TwoTensors("first", "second", 0),
              "tensor 'second' overlaps tensor 'first'");
  corpus->Add("tensor_same_offset_of_unknown_type", TwoTensors("first", "second", 0, 77),
              "tensor 'second' overlaps tensor 'first'");
  corpus->Add("tensor_empty_name", TwoTensors("first", "", 64), "has no name");
  corpus->Add("tensor_zero_byte_in_name", TwoTensors("first", std::string("a\0b", 3), 64),
              "control characters: 'a\\x00\\x62'");
  corpus->Add("tensor_long_name", TwoTensors(std::string(300, 't'), "second", 64),
              "name of 300 bytes");
}

void AddBrokenConfigs(Corpus* corpus) {
  const auto key = [corpus](const char* name, auto change, const char* error) {
    corpus->Changed(std::string("config_") + name, change, error);
  };
  using B = GgufBuilder;
  key(
      "no_architecture", [](B& b) { b.RemoveKey("general.architecture"); },
      "key 'general.architecture' is missing");
  key(
      "architecture_with_newline", [](B& b) { b.String("general.architecture", "a\nb"); },
      "architecture 'a\\nb' is not computed");
  key(
      "split", [](B& b) { b.Uint("split.count", 3); }, "one of 3 parts");
  key(
      "no_layers", [](B& b) { b.Uint("llama.block_count", 0); }, "'llama.block_count' is 0");
  key(
      "huge_layers", [](B& b) { b.Uint("llama.block_count", 1u << 31); },
      "'llama.block_count' is 2147483648");
  key(
      "negative_width", [](B& b) { b.Int("llama.embedding_length", -2); },
      "'llama.embedding_length' is -2");
  key(
      "width_is_a_string", [](B& b) { b.String("llama.embedding_length", "2"); },
      "'llama.embedding_length' holds a string");
  key(
      "no_context", [](B& b) { b.RemoveKey("llama.context_length"); },
      "'llama.context_length' is missing");
  key(
      "heads_not_divisible", [](B& b) { b.Uint("llama.attention.head_count_kv", 3); },
      "3, which does not divide the 2 heads");
  key(
      "heads_per_layer",
      [](B& b) {
        b.Ints("llama.attention.head_count_kv", {1, 2});
      },
      "a value per layer");
  key(
      "value_length", [](B& b) { b.Uint("llama.attention.value_length", 4); },
      "only equal lengths");
  key(
      "odd_rotation",
      [](B& b) {
        b.Uint("llama.attention.key_length", 4)
            .Uint("llama.attention.value_length", 4)
            .Uint("llama.rope.dimension_count", 3);
      },
      "'llama.rope.dimension_count' is 3, which is odd");
  key(
      "rotation_beyond_head", [](B& b) { b.Uint("llama.rope.dimension_count", 4); },
      "'llama.rope.dimension_count' is 4");
  key(
      "eps_is_zero", [](B& b) { b.Float("llama.attention.layer_norm_rms_epsilon", 0); }, "above 0");
  key(
      "eps_is_nan",
      [](B& b) {
        b.Key("llama.attention.layer_norm_rms_epsilon", GgufKind::kFloat32,
              ByteWriter().Put(0x7fc00000u).bytes());
      },
      "not a finite number");
  key(
      "rope_scaling", [](B& b) { b.String("llama.rope.scaling.type", "yarn"); }, "'yarn'");
  key(
      "activation", [](B& b) { b.String("llama.hidden_activation", "gelu"); },
      "'gelu', an unknown activation");
  key(
      "experts", [](B& b) { b.Uint("llama.expert_count", 8); }, "mixtures of experts");
}

void AddBrokenModels(Corpus* corpus) {
  const auto tensor = [corpus](const char* name, auto change, const char* error) {
    corpus->Changed(std::string("model_") + name, change, error);
  };
  using B = GgufBuilder;
  tensor(
      "missing_tensor", [](B& b) { b.RemoveTensor("blk.0.ffn_up.weight"); },
      "tensor 'blk.0.ffn_up.weight' is missing");
  tensor(
      "many_missing_tensors", [](B& b) { b.Uint("llama.block_count", 1024); }, "more");
  tensor(
      "wrong_shape",
      [](B& b) {
        b.Tensor("blk.0.ffn_up.weight", TensorType::kF16, {4, 2}, Bytes(16));
      },
      "'blk.0.ffn_up.weight' is [2, 4], but [d_ff, d_model] is [4, 2]");
  tensor(
      "wrong_vocabulary", [](B& b) { b.Uint("llama.vocab_size", 5); },
      "[n_vocab, d_model] is [5, 2]");
  tensor(
      "norm_in_f16", [](B& b) { b.Tensor("output_norm.weight", TensorType::kF16, {2}, Bytes(4)); },
      "has type F16, it must be F32");
  tensor(
      "type_not_computed",
      [](B& b) {
        b.Tensor("blk.0.ffn_up.weight", TensorType{24}, {2, 4}, Bytes(8));
      },
      "has type I8, which is not computed here");
  tensor(
      "type_unknown",
      [](B& b) {
        b.Tensor("blk.0.ffn_up.weight", TensorType{77}, {2, 4}, Bytes(8));
      },
      "has type number 77, which is not computed here");
  tensor(
      "bias",
      [](B& b) {
        b.TensorF32("blk.0.attn_q.bias", {4}, {1, 2, 3, 4});
      },
      "tensor 'blk.0.attn_q.bias' is no part of the model");
  tensor(
      "down_both_ways",
      [](B& b) {
        b.Tensor("blk.0.ffn_down_t.weight", TensorType::kF16, {2, 4}, Bytes(16));
      },
      "'blk.0.ffn_down.weight' and 'blk.0.ffn_down_t.weight' are both there");
  GgufBuilder vocabulary;
  vocabulary.String("general.architecture", "llama");
  corpus->Add("model_nothing", vocabulary.Build(), "'llama.block_count' is missing");
}

}  // namespace

std::vector<CorpusFile> GgufCorpus() {
  Corpus corpus;
  AddWhole(&corpus);
  AddCuts(&corpus);
  AddBrokenHeaders(&corpus);
  AddBrokenKeys(&corpus);
  AddBrokenTensors(&corpus);
  AddBrokenConfigs(&corpus);
  AddBrokenModels(&corpus);
  return corpus.files;
}

}  // namespace thermocline::testing
