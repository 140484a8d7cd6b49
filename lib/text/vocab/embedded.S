// The include path has the folder of this file.
        .section .rodata
        .global distorch_clip_merges_begin, distorch_clip_merges_end
        .global distorch_html_entities_begin, distorch_html_entities_end
        .hidden distorch_clip_merges_begin, distorch_clip_merges_end
        .hidden distorch_html_entities_begin, distorch_html_entities_end
distorch_clip_merges_begin:
        .incbin "bpe_simple_vocab_16e6.txt.gz"
distorch_clip_merges_end:
distorch_html_entities_begin:
        .incbin "html_entities.txt"
distorch_html_entities_end:
        .section .note.GNU-stack, "", %progbits
