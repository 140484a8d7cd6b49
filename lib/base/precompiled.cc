// Exists only to carry the precompiled headers that targets share (deploy/cmake/House.cmake).
