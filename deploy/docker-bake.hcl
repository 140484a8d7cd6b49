// docker buildx bake -f deploy/docker-bake.hcl [cpu | cuda], at the top: the images that deploy/kubernetes names.
group "default" {
  targets = ["cpu", "cuda"]
}

target "image" {
  name   = variant
  matrix = { variant = ["cpu", "cuda"] }
  args   = { VARIANT = variant }
  tags   = ["distorchd:${variant}"]
  attest = ["type=sbom", "type=provenance,mode=max"]
}
