// What diffusers and the reference call the modules of one network: for folders
// (diffusers_layout.h) and for adapters (diffusers_names.h).
#ifndef LIB_MODELS_DIFFUSERS_TABLES_H_
#define LIB_MODELS_DIFFUSERS_TABLES_H_

#include <string_view>

namespace distorch::models::diffusers {

// A module, relative to the network or to its block.
struct Renamed {
  std::string_view diffusers, native;
  // The first half of the rows is the other's second: diffusers has scale and shift the other way
  // round.
  bool swapped_halves = false;
};

// One of several matrices that the reference has as one, in the order of `part`. All have as many
// rows, but for one that takes the rest.
struct Joined {
  std::string_view diffusers, native;
  int part;
  bool takes_rest = false;
};

inline constexpr Renamed kUNetNames[] = {
    {"conv_in", "input_blocks.0.0"},
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
    {"class_embedding.linear_1", "label_emb.0.0"},
    {"class_embedding.linear_2", "label_emb.0.2"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"},
};
inline constexpr Renamed kUNetResnetNames[] = {
    {"norm1", "in_layers.0"},  {"conv1", "in_layers.2"},  {"time_emb_proj", "emb_layers.1"},
    {"norm2", "out_layers.0"}, {"conv2", "out_layers.3"}, {"conv_shortcut", "skip_connection"},
};
inline constexpr Renamed kMMDiTNames[] = {
    {"pos_embed.proj", "x_embedder.proj"},
    {"context_embedder", "context_embedder"},
    {"time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"},
    {"time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"},
    {"time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"},
    {"time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"},
    {"norm_out.linear", "final_layer.adaLN_modulation.1", true},
    {"proj_out", "final_layer.linear"},
};
inline constexpr Renamed kMMDiTBlockNames[] = {
    {"norm1.linear", "x_block.adaLN_modulation.1"},
    {"norm1_context.linear", "context_block.adaLN_modulation.1"},
    {"attn.to_out.0", "x_block.attn.proj"},
    {"attn.norm_q", "x_block.attn.ln_q"},
    {"attn.norm_k", "x_block.attn.ln_k"},
    {"attn.to_add_out", "context_block.attn.proj"},
    {"attn.norm_added_q", "context_block.attn.ln_q"},
    {"attn.norm_added_k", "context_block.attn.ln_k"},
    {"attn2.to_out.0", "x_block.attn2.proj"},
    {"attn2.norm_q", "x_block.attn2.ln_q"},
    {"attn2.norm_k", "x_block.attn2.ln_k"},
    {"ff.net.0.proj", "x_block.mlp.fc1"},
    {"ff.net.2", "x_block.mlp.fc2"},
    {"ff_context.net.0.proj", "context_block.mlp.fc1"},
    {"ff_context.net.2", "context_block.mlp.fc2"},
};
inline constexpr Renamed kFluxNames[] = {
    {"x_embedder", "img_in"},
    {"context_embedder", "txt_in"},
    {"time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"},
    {"time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"},
    {"time_text_embed.text_embedder.linear_1", "vector_in.in_layer"},
    {"time_text_embed.text_embedder.linear_2", "vector_in.out_layer"},
    {"time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"},
    {"time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"},
    {"norm_out.linear", "final_layer.adaLN_modulation.1", true},
    {"proj_out", "final_layer.linear"},
};
inline constexpr Renamed kFluxDoubleNames[] = {
    {"norm1.linear", "img_mod.lin"},
    {"norm1_context.linear", "txt_mod.lin"},
    {"attn.to_out.0", "img_attn.proj"},
    {"attn.to_add_out", "txt_attn.proj"},
    {"attn.norm_q", "img_attn.norm.query_norm"},
    {"attn.norm_k", "img_attn.norm.key_norm"},
    {"attn.norm_added_q", "txt_attn.norm.query_norm"},
    {"attn.norm_added_k", "txt_attn.norm.key_norm"},
    {"ff.net.0.proj", "img_mlp.0"},
    {"ff.net.2", "img_mlp.2"},
    {"ff_context.net.0.proj", "txt_mlp.0"},
    {"ff_context.net.2", "txt_mlp.2"},
};
inline constexpr Renamed kFluxSingleNames[] = {
    {"norm.linear", "modulation.lin"},
    {"proj_out", "linear2"},
    {"attn.norm_q", "norm.query_norm"},
    {"attn.norm_k", "norm.key_norm"},
};

inline constexpr Joined kMMDiTJoined[] = {
    {"attn.to_q", "x_block.attn.qkv", 0},
    {"attn.to_k", "x_block.attn.qkv", 1},
    {"attn.to_v", "x_block.attn.qkv", 2},
    {"attn.add_q_proj", "context_block.attn.qkv", 0},
    {"attn.add_k_proj", "context_block.attn.qkv", 1},
    {"attn.add_v_proj", "context_block.attn.qkv", 2},
    {"attn2.to_q", "x_block.attn2.qkv", 0},
    {"attn2.to_k", "x_block.attn2.qkv", 1},
    {"attn2.to_v", "x_block.attn2.qkv", 2},
};
inline constexpr Joined kFluxDoubleJoined[] = {
    {"attn.to_q", "img_attn.qkv", 0},       {"attn.to_k", "img_attn.qkv", 1},
    {"attn.to_v", "img_attn.qkv", 2},       {"attn.add_q_proj", "txt_attn.qkv", 0},
    {"attn.add_k_proj", "txt_attn.qkv", 1}, {"attn.add_v_proj", "txt_attn.qkv", 2},
};
inline constexpr Joined kFluxSingleJoined[] = {
    {"attn.to_q", "linear1", 0},
    {"attn.to_k", "linear1", 1},
    {"attn.to_v", "linear1", 2},
    {"proj_mlp", "linear1", 3, true},
};

// In the last block of an MMDiT the context goes no further: its modulation is only a scale and a
// shift, and those are swapped.
inline constexpr std::string_view kMMDiTContextModulation = "norm1_context.linear";

}  // namespace distorch::models::diffusers

#endif  // LIB_MODELS_DIFFUSERS_TABLES_H_
