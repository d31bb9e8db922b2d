#!/usr/bin/env python3
"""Writes powerinfer_llama.gguf and powerinfer_bamboo.gguf, tiny models in PowerInfer's format, and beside each NAME.expected.gguf:
tokens (I32 [n_tokens]), predict.logits and off.logits (F32 [n_tokens, n_vocab]), predict.computed (F32 [1], share of the neurons that
the mask keeps). Computed here in f64 from the dequantized weights; no code of this repository is used. Needs numpy and the gguf package.

The rule: mask = fc2 . relu(fc1 . residual before the FFN norm) > powerinfer.sparse_threshold; a neuron under the mask gives
relu(gate) * up (bamboo: relu(gate) * relu(up)), any other 0.
"""
import pathlib
import struct

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

FOLDER = pathlib.Path(__file__).parent
F32, Q8_0, Q4_0 = (getattr(gguf.GGMLQuantizationType, name) for name in ("F32", "Q8_0", "Q4_0"))
D_MODEL, N_LAYERS, N_HEADS, N_KV_HEADS, D_HEAD, D_FF, RANK = 64, 2, 4, 2, 16, 96, 16
EPS, THRESHOLD, N_TOKENS = 1e-5, 0.375, 12  # a threshold that f32 holds


class Model:
    """Writes tensors, and keeps what a reader of the file will see of them."""

    def __init__(self, architecture, n_vocab, types, seed):
        self.n_vocab, self.types, self.rng, self.weights = n_vocab, types, np.random.default_rng(seed), {}
        self.path = FOLDER / f"powerinfer_{architecture}.gguf"
        self.relu_up = architecture == "bamboo"
        self.writer = w = gguf.GGUFWriter(self.path, architecture)
        for key, value in dict(context_length=64, embedding_length=D_MODEL, block_count=N_LAYERS, feed_forward_length=D_FF, rope_dimension_count=D_HEAD,
                               head_count=N_HEADS, head_count_kv=N_KV_HEADS, vocab_size=n_vocab, layer_norm_rms_eps=EPS, rope_freq_base=10000.0).items():
            getattr(w, "add_" + key)(value)
        w.add_float32("powerinfer.sparse_threshold", THRESHOLD)
        names = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)]
        names = (names + [b"t%d" % i for i in range(n_vocab)])[:n_vocab]
        w.add_tokenizer_model("llama")
        w.add_token_list(names)
        w.add_token_scores([-float(i) for i in range(n_vocab)])
        w.add_token_types([2, 3, 3] + [6 if name.startswith(b"<0x") else 1 for name in names[3:]])
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
        self.make()
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        with open(self.path, "r+b") as file:
            file.write(b"PWRI" + struct.pack("<I", 3))

    def add(self, name, values, ggml_type=F32):
        data = quantize(np.ascontiguousarray(values, np.float32), ggml_type)
        self.writer.add_tensor(name + ".weight", data, raw_dtype=ggml_type)
        self.weights[name] = dequantize(data, ggml_type).astype(np.float64).reshape(np.shape(values))

    def normal(self, rows, columns, scale):
        return self.rng.standard_normal((rows, columns)) * scale

    def make(self):
        self.add("token_embd", self.normal(self.n_vocab, D_MODEL, 1), self.types[0])
        self.add("output_norm", self.rng.uniform(0.5, 1.5, D_MODEL))
        if not self.relu_up:  # bamboo's output is its embedding here
            self.add("output", self.normal(self.n_vocab, D_MODEL, 0.2), self.types[0])
        s = D_MODEL ** -0.5
        for layer in range(N_LAYERS):
            p, kind = f"blk.{layer}.", self.types[1 + layer]
            self.add(p + "attn_norm", self.rng.uniform(0.5, 1.5, D_MODEL))
            self.add(p + "ffn_norm", self.rng.uniform(0.3, 2.5, D_MODEL))
            self.add(p + "attn_q", self.normal(N_HEADS * D_HEAD, D_MODEL, 1.5 * s), kind)
            self.add(p + "attn_k", self.normal(N_KV_HEADS * D_HEAD, D_MODEL, 1.5 * s), kind)
            self.add(p + "attn_v", self.normal(N_KV_HEADS * D_HEAD, D_MODEL, s), kind)
            self.add(p + "attn_output", self.normal(D_MODEL, N_HEADS * D_HEAD, s), kind)
            self.add(p + "ffn_gate", self.normal(D_FF, D_MODEL, s), kind)
            self.add(p + "ffn_up", self.normal(D_FF, D_MODEL, s), kind)
            self.add(p + "ffn_down_t", self.normal(D_FF, D_MODEL, 0.25), kind)
            self.add(p + "fc1", self.normal(RANK, D_MODEL, s), F32 if layer == 0 else kind)
            # A mean below 0 makes most scores negative. Rows of RANK < 32 columns can't be quantized.
            self.add(p + "fc2", self.normal(D_FF, RANK, 0.4) - 0.05)

    def norm(self, name, x):
        return x / np.sqrt((x * x).mean(1, keepdims=True) + EPS) * self.weights[name]

    def rope(self, x):  # [n_tokens, n, d_head], pairs lie side by side
        angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(0, D_HEAD, 2) / D_HEAD)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def attention(self, p, x):
        w, n = self.weights, len(x)
        q = self.rope((x @ w[p + "attn_q"].T).reshape(n, N_HEADS, D_HEAD))
        k = self.rope((x @ w[p + "attn_k"].T).reshape(n, N_KV_HEADS, D_HEAD)).repeat(N_HEADS // N_KV_HEADS, 1)
        v = (x @ w[p + "attn_v"].T).reshape(n, N_KV_HEADS, D_HEAD).repeat(N_HEADS // N_KV_HEADS, 1)
        score = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(D_HEAD)
        score[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        share = np.exp(score - score.max(2, keepdims=True))
        share /= share.sum(2, keepdims=True)
        return np.einsum("hij,jhd->ihd", share, v).reshape(n, -1) @ w[p + "attn_output"].T

    def logits(self, tokens, rule):
        """The logits, the share of neurons under the mask, and how near a score comes to the threshold."""
        w = self.weights
        relu = lambda x: np.maximum(x, 0)
        x = w["token_embd"][tokens]
        kept, nearest = [], np.inf
        for layer in range(N_LAYERS):
            p = f"blk.{layer}."
            x = x + self.attention(p, self.norm(p + "attn_norm", x))
            normed = self.norm(p + "ffn_norm", x)
            seen = (normed if rule == "fed after the norm" else x) @ w[p + "fc1"].T
            score = (seen if rule == "no relu" else relu(seen)) @ w[p + "fc2"].T
            threshold = 0 if rule == "no threshold" else THRESHOLD
            mask = score > (-np.inf if rule == "off" else threshold)
            kept.append(mask.mean())
            nearest = min(nearest, np.abs(score - threshold).min())
            up = normed @ w[p + "ffn_up"].T
            if self.relu_up != (rule == "other up"):
                up = relu(up)
            x = x + (mask * relu(normed @ w[p + "ffn_gate"].T) * up) @ w[p + "ffn_down_t"]
        return self.norm("output_norm", x) @ w.get("output", w["token_embd"]).T, np.mean(kept), nearest

    def write_expected(self):
        tokens = self.rng.integers(3, self.n_vocab, N_TOKENS)
        tokens[0] = 1
        predict, kept, nearest = self.logits(tokens, "predict")
        assert 0.1 < kept < 0.5 and nearest > 2e-4, (kept, nearest)  # no mask that rounding decides
        for rule in ("off", "fed after the norm", "no relu", "no threshold", "other up"):
            other = self.logits(tokens, rule)[0]
            distance = np.linalg.norm(other - predict) / np.linalg.norm(predict)
            assert distance > 0.02, (rule, distance)
        w = gguf.GGUFWriter(self.path.with_suffix(".expected.gguf"), "expected")
        w.add_tensor("tokens", tokens.astype(np.int32))
        w.add_tensor("predict.logits", predict.astype(np.float32))
        w.add_tensor("predict.computed", np.float32([kept]))
        w.add_tensor("off.logits", self.logits(tokens, "off")[0].astype(np.float32))
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        print(f"{self.path.name}: {kept:.3f} of the neurons under the mask, nearest score {nearest:.1e} off the threshold")


Model("llama", 288, [Q8_0, Q8_0, Q4_0], seed=2).write_expected()
Model("bamboo", 96, [F32, F32, F32], seed=2).write_expected()
