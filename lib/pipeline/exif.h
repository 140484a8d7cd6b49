// The two things we read and write of EXIF (CIPA DC-008): which way up a picture is, and text about
// it. "exif" below is a TIFF structure, without the "Exif\0\0" that JPEG puts before it.
#ifndef LIB_PIPELINE_EXIF_H_
#define LIB_PIPELINE_EXIF_H_

#include <string>
#include <string_view>

#include "lib/pipeline/image8.h"

namespace distorch {

// 1…8 as the standard's tag 274; 1, which is "as it is", when there is none or `exif` is malformed.
int ExifOrientation(std::string_view exif);

// The picture that a viewer shows for an image stored with `orientation`.
Image8 Oriented(Image8 image, int orientation);

// `text` where users' tools look for it: "parameters" as the user comment (AUTOMATIC1111's WebUI),
// "prompt" as the camera's model (ComfyUI). What does not fit in `max_bytes` is left out, the
// prompt first; empty when nothing is left. Other keywords have no place here.
std::string ExifFromText(const ImageText& text, size_t max_bytes);

}  // namespace distorch

#endif  // LIB_PIPELINE_EXIF_H_
