// The include path has the folder of this file.
        .section .rodata
        .global distorch_clip_merges_begin, distorch_clip_merges_end
        .global distorch_html_entities_begin, distorch_html_entities_end
        .global distorch_t5_tokenizer_begin, distorch_t5_tokenizer_end
        .hidden distorch_clip_merges_begin, distorch_clip_merges_end
        .hidden distorch_html_entities_begin, distorch_html_entities_end
        .hidden distorch_t5_tokenizer_begin, distorch_t5_tokenizer_end
distorch_clip_merges_begin:
        .incbin "bpe_simple_vocab_16e6.txt.gz"
distorch_clip_merges_end:
distorch_html_entities_begin:
        .incbin "html_entities.txt"
distorch_html_entities_end:
distorch_t5_tokenizer_begin:
        .incbin "t5_tokenizer.json.gz"
distorch_t5_tokenizer_end:
        .section .note.GNU-stack, "", %progbits
