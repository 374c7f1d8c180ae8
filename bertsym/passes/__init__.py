"""Graph passes: functions that rewrite a SymbolGraph in place.

All passes follow one convention:

- The name is a verb with its object. The first parameter is ``graph``; what else the pass needs follows.
- The pass changes the graph in place. When it raises, the graph is as it was.
- The pass returns the number of places that it changed. Where callers need more, it returns a small object of a class
  in the same module, or None when it changed nothing.
- A pass never copies: `apply_to_copy` does.

======================  =======================  =======================================================================
module                  pass                     what it does
======================  =======================  =======================================================================
attention_interleaving  interleave_attention     lets int8 layers compute attention on interleaved heads
class_loss              replace_softmax_loss     weights and smooths the cross entropy of a training graph
dropout_insertion       insert_dropout           inserts Dropout where a BERT lacks it
dropout_masks           feed_dropout_masks       replaces Dropout with a multiplication by a mask that is an input
embedding_rows          keep_used_rows           shrinks the token embedding to the rows that the data uses
encoder_replacement     replace_encoder          replaces the encoder with the same encoder in another form
gelu                    decompose_gelu           replaces the gelu operator with the erf formula
gelu                    fuse_gelu                replaces the erf formula with the gelu operator
inferred_ranges         resolve_inferred_ranges  lets a range read the length that MXNet infers from its reader
input_guard             add_input_guard          clips the inputs to the ranges that MXNet does not check
input_guard             remove_input_guard       removes these clips
layer_norm              decompose_layer_norm     replaces LayerNorm with operators with faster gradients on a CPU
masked_positions        read_all_tokens          lets the decoder of GluonNLP's BERTModel read every token
qkv_folding             fold_qkv                 computes query, key and value with one FullyConnected
qkv_folding             unfold_qkv               reverses this
release_adaptation      adapt_to_release         rewrites operators that an MXNet does not load or computes wrong
single_precision        compute_in_float32       computes in float32 what the graph computes in float16
token_pooling           pool_tokens              ends the graph in one vector for each text
token_types             drop_token_types         lets every token have the type 0, without an input for it
unfusing                dequantize_layers        replaces int8 layers with the original operators, without rounding
unfusing                unfuse_float32_layers    replaces oneDNN's fused float32 layers with the original operators
======================  =======================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from bertsym.symbol.graph import SymbolGraph


def apply_to_copy(graph: SymbolGraph, *passes: Callable[[SymbolGraph], object]) -> SymbolGraph:
    """Copy a graph and run passes on the copy, in this order; results of the passes are discarded."""
    copy = graph.copy()
    for run in passes:
        run(copy)
    return copy
