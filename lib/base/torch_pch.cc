// Exists only to carry the precompiled LibTorch header that the torch houses share.
