#include "lib/lora/algorithms.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/base/utf8.h"

namespace distorch::lora {
namespace {

using Shape = std::vector<int64_t>;

// A tensor's or weight's shape as a matrix: dimension 0 by all others.
struct Matrix {
  int64_t rows = 0, columns = 0;
  bool operator==(const Matrix&) const = default;
};

absl::Status Misfit(const TensorInfo& tensor, std::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      Quoted(tensor.name), " has shape ", ShapeString(tensor.shape), ", expected ", expected));
}

// `expected`: of a weight of `shape`.
absl::Status MisfitOf(const TensorInfo& tensor, std::string_view expected, const Shape& shape) {
  return Misfit(tensor, absl::StrCat(expected, " for a weight of shape ", ShapeString(shape)));
}

Matrix AsMatrix(const Shape& shape) {
  Matrix matrix{shape[0], 1};
  for (size_t i = 1; i < shape.size(); ++i) matrix.columns *= shape[i];
  return matrix;
}

// Elements after the first two dimensions.
int64_t KernelElements(const Shape& shape) {
  int64_t elements = 1;
  for (size_t i = 2; i < shape.size(); ++i) elements *= shape[i];
  return elements;
}

// `part` of the module that `beside` is of, as a matrix without empty dimensions.
absl::StatusOr<Matrix> Need(const ModuleTensors& tensors, Part part, std::string_view role) {
  const TensorInfo* const tensor = tensors[part];
  if (tensor == nullptr) {
    const auto* const other = std::find_if(tensors.all().begin(), tensors.all().end(),
                                           [](const TensorInfo* t) { return t != nullptr; });
    return absl::InvalidArgumentError(
        absl::StrCat("beside ", Quoted((*other)->name), " its ", role, " is missing"));
  }
  if (tensor->shape.size() < 2 || tensor->elements() == 0)
    return Misfit(*tensor, "two or more dimensions, none empty");
  return AsMatrix(tensor->shape);
}

// Whether `a` × `b` is `product`, without overflow. All are positive.
bool IsProduct(int64_t a, int64_t b, int64_t product) {
  return product % a == 0 && product / a == b;
}

// The columns of left · right; both are there.
absl::Status CheckProduct(const ModuleTensors& tensors, Part left, Matrix a, Part right, Matrix b) {
  if (a.columns == b.rows) return absl::OkStatus();
  return Misfit(*tensors[right],
                absl::StrCat(a.columns, " rows, the rank of ", Quoted(tensors[left]->name)));
}

at::Tensor Flat(const at::Tensor& tensor) { return tensor.flatten(1); }
const at::Tensor& Get(const ByPart<at::Tensor>& tensors, Part part) {
  return tensors[static_cast<size_t>(part)];
}

// Tucker's form of a convolution, "Tensor decompositions" (Kolda & Bader, 2009): core [i, j, h, w],
// out [i, p], in [j, r] -> [p, r, h, w].
at::Tensor Tucker(const at::Tensor& core, const at::Tensor& in, const at::Tensor& out) {
  return at::einsum("ijkl,jr,ip->prkl", {core, in, out});
}

absl::Status CheckTucker(const ModuleTensors& tensors, Part core_part, Matrix in, Matrix out) {
  const TensorInfo& core = *tensors[core_part];
  if (core.shape.size() == 4 && core.shape[0] == out.rows && core.shape[1] == in.rows &&
      core.elements() > 0) {
    return absl::OkStatus();
  }
  return Misfit(core, absl::StrCat("[", out.rows, ", ", in.rows, ", h, w]"));
}

absl::StatusOr<int64_t> CheckLora(const ModuleTensors& tensors, const Shape& shape) {
  ASSIGN_OR_RETURN(const Matrix up, Need(tensors, Part::kUp, "up (B) matrix"));
  ASSIGN_OR_RETURN(const Matrix down, Need(tensors, Part::kDown, "down (A) matrix"));
  RETURN_IF_ERROR(CheckProduct(tensors, Part::kUp, up, Part::kDown, down));
  const Matrix weight = AsMatrix(shape);
  if (up.rows != weight.rows) {
    return MisfitOf(*tensors[Part::kUp], absl::StrCat(weight.rows, " rows"), shape);
  }
  int64_t kernel = 1;
  if (const TensorInfo* mid = tensors[Part::kMid]) {
    RETURN_IF_ERROR(CheckTucker(tensors, Part::kMid, down, down));
    kernel = KernelElements(mid->shape);
  }
  if (!IsProduct(down.columns, kernel, weight.columns)) {
    return MisfitOf(*tensors[Part::kDown], absl::StrCat(weight.columns / kernel, " columns"),
                    shape);
  }
  return down.rows;
}

at::Tensor LoraChange(const ByPart<at::Tensor>& tensors, const at::Tensor& /*weight*/) {
  at::Tensor down = Flat(Get(tensors, Part::kDown));
  if (const at::Tensor& mid = Get(tensors, Part::kMid); mid.defined()) {
    down = at::einsum("mnkl,nj->mjkl", {mid, down}).flatten(1);
  }
  return at::mm(Flat(Get(tensors, Part::kUp)), down);
}

// One of LoHa's two factors: [p, rank] · [rank, columns], or with a core its Tucker form. The
// columns that it makes of a row.
absl::Status CheckLohaFactor(const ModuleTensors& tensors, Part a_part, Part b_part, Part core_part,
                             const Shape& shape) {
  ASSIGN_OR_RETURN(const Matrix a, Need(tensors, a_part, "LoHa a matrix"));
  ASSIGN_OR_RETURN(const Matrix b, Need(tensors, b_part, "LoHa b matrix"));
  const Matrix weight = AsMatrix(shape);
  if (tensors.has(core_part)) {
    RETURN_IF_ERROR(CheckTucker(tensors, core_part, b, a));
    const int64_t kernel = KernelElements(tensors[core_part]->shape);
    if (a.columns == weight.rows && IsProduct(b.columns, kernel, weight.columns))
      return absl::OkStatus();
    return MisfitOf(*tensors[core_part], "a core", shape);
  }
  RETURN_IF_ERROR(CheckProduct(tensors, a_part, a, b_part, b));
  if (a.rows != weight.rows)
    return MisfitOf(*tensors[a_part], absl::StrCat(weight.rows, " rows"), shape);
  if (b.columns != weight.columns)
    return MisfitOf(*tensors[b_part], absl::StrCat(weight.columns, " columns"), shape);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CheckLoha(const ModuleTensors& tensors, const Shape& shape) {
  RETURN_IF_ERROR(CheckLohaFactor(tensors, Part::kLohaW1A, Part::kLohaW1B, Part::kLohaT1, shape));
  RETURN_IF_ERROR(CheckLohaFactor(tensors, Part::kLohaW2A, Part::kLohaW2B, Part::kLohaT2, shape));
  return tensors[Part::kLohaW1B]->shape[0];
}

at::Tensor LohaFactor(const ByPart<at::Tensor>& tensors, Part a_part, Part b_part, Part core_part) {
  const at::Tensor a = Flat(Get(tensors, a_part)), b = Flat(Get(tensors, b_part));
  const at::Tensor& core = Get(tensors, core_part);
  return core.defined() ? Tucker(core, b, a).flatten(1) : at::mm(a, b);
}

at::Tensor LohaChange(const ByPart<at::Tensor>& tensors, const at::Tensor& /*weight*/) {
  return LohaFactor(tensors, Part::kLohaW1A, Part::kLohaW1B, Part::kLohaT1)
      .mul_(LohaFactor(tensors, Part::kLohaW2A, Part::kLohaW2B, Part::kLohaT2));
}

// One of LoKr's two factors.
struct KronFactor {
  Matrix matrix;     // its kernel counts among the columns
  int64_t rank = 0;  // 0: it is there whole
};

absl::StatusOr<KronFactor> CheckKronFactor(const ModuleTensors& tensors, Part whole, Part a_part,
                                           Part b_part, Part core_part) {
  if (tensors.has(whole)) {
    ASSIGN_OR_RETURN(const Matrix matrix, Need(tensors, whole, "LoKr matrix"));
    const size_t dims = tensors[whole]->shape.size();
    if (dims != 2 && dims != 4) return Misfit(*tensors[whole], "two or four dimensions");
    return KronFactor{matrix, 0};
  }
  ASSIGN_OR_RETURN(const Matrix a, Need(tensors, a_part, "LoKr a matrix"));
  ASSIGN_OR_RETURN(const Matrix b, Need(tensors, b_part, "LoKr b matrix"));
  if (core_part != Part::kCount && tensors.has(core_part)) {
    RETURN_IF_ERROR(CheckTucker(tensors, core_part, b, a));
    int64_t columns = 0;
    if (__builtin_mul_overflow(b.columns, KernelElements(tensors[core_part]->shape), &columns))
      return Misfit(*tensors[core_part], "a smaller kernel");
    return KronFactor{{a.columns, columns}, b.rows};
  }
  RETURN_IF_ERROR(CheckProduct(tensors, a_part, a, b_part, b));
  return KronFactor{{a.rows, b.columns}, b.rows};
}

absl::StatusOr<int64_t> CheckLokr(const ModuleTensors& tensors, const Shape& shape) {
  ASSIGN_OR_RETURN(const KronFactor first, CheckKronFactor(tensors, Part::kLokrW1, Part::kLokrW1A,
                                                           Part::kLokrW1B, Part::kCount));
  ASSIGN_OR_RETURN(const KronFactor second, CheckKronFactor(tensors, Part::kLokrW2, Part::kLokrW2A,
                                                            Part::kLokrW2B, Part::kLokrT2));
  const Matrix weight = AsMatrix(shape);
  if (!IsProduct(first.matrix.rows, second.matrix.rows, weight.rows) ||
      !IsProduct(first.matrix.columns, second.matrix.columns, weight.columns)) {
    const TensorInfo* const named =
        tensors.has(Part::kLokrW2) ? tensors[Part::kLokrW2] : tensors[Part::kLokrW2A];
    return MisfitOf(*named,
                    absl::StrCat("one whose Kronecker product with a ", first.matrix.rows, " by ",
                                 first.matrix.columns, " matrix fits"),
                    shape);
  }
  return second.rank != 0 ? second.rank : first.rank;
}

at::Tensor LokrChange(const ByPart<at::Tensor>& tensors, const at::Tensor& /*weight*/) {
  at::Tensor first = Get(tensors, Part::kLokrW1), second = Get(tensors, Part::kLokrW2);
  if (!first.defined())
    first = at::mm(Flat(Get(tensors, Part::kLokrW1A)), Flat(Get(tensors, Part::kLokrW1B)));
  if (!second.defined()) {
    const at::Tensor a = Flat(Get(tensors, Part::kLokrW2A)), b = Flat(Get(tensors, Part::kLokrW2B));
    const at::Tensor& core = Get(tensors, Part::kLokrT2);
    second = core.defined() ? Tucker(core, b, a) : at::mm(a, b);
  }
  // [a, b] ⊗ [c, d, …]: each element of the first scales a whole second.
  first = Flat(first);
  const Shape inner = second.sizes().vec();
  const int64_t kernel = KernelElements(inner);
  return at::einsum("ab,cdk->acbdk", {first, second.reshape({inner[0], inner[1], kernel})})
      .reshape({first.size(0) * inner[0], -1});
}

// Which of the two layouts of LyCORIS's history.
struct Glora {
  bool old_layout = false;
  int64_t rank = 0;
};

Glora GloraLayout(Matrix a1, Matrix a2, Matrix b1, Matrix b2, const Shape& shape) {
  const bool fits_old =
      b2.columns == a1.rows && b1.rows == a1.rows && a2.columns == a1.rows && a1.rows > 0;
  const bool fits_new = b2.rows == a1.columns && b1.columns == a1.columns && a2.rows == a1.columns;
  // A square weight whose rank is full fits both: the old one was meant.
  const bool ambiguous_is_old =
      fits_old && a2.rows == shape[0] && shape.size() > 1 && shape[0] == shape[1];
  if (fits_new && !ambiguous_is_old) return {false, a1.columns};
  return {true, fits_old ? a1.rows : 0};
}

absl::StatusOr<int64_t> CheckGlora(const ModuleTensors& tensors, const Shape& shape) {
  ASSIGN_OR_RETURN(const Matrix a1, Need(tensors, Part::kGloraA1, "GLoRA a1 matrix"));
  ASSIGN_OR_RETURN(const Matrix a2, Need(tensors, Part::kGloraA2, "GLoRA a2 matrix"));
  ASSIGN_OR_RETURN(const Matrix b1, Need(tensors, Part::kGloraB1, "GLoRA b1 matrix"));
  ASSIGN_OR_RETURN(const Matrix b2, Need(tensors, Part::kGloraB2, "GLoRA b2 matrix"));
  const Matrix weight = AsMatrix(shape);
  const auto misfit = [&](Part part) { return MisfitOf(*tensors[part], "a GLoRA matrix", shape); };
  if (shape.size() < 2) return misfit(Part::kGloraA1);
  const Glora layout = GloraLayout(a1, a2, b1, b2, shape);
  const int64_t rank = layout.rank;
  if (rank == 0) return misfit(Part::kGloraA1);
  const int64_t in = layout.old_layout ? weight.columns : shape[1];
  const Matrix tall{in, rank}, wide{rank, in};
  if (a1 != (layout.old_layout ? wide : tall)) return misfit(Part::kGloraA1);
  if (a2 != (layout.old_layout ? tall : wide)) return misfit(Part::kGloraA2);
  const Matrix left{weight.rows, rank}, right{rank, weight.columns};
  if (b1 != (layout.old_layout ? right : left)) return misfit(Part::kGloraB1);
  if (b2 != (layout.old_layout ? left : right)) return misfit(Part::kGloraB2);
  return rank;
}

at::Tensor GloraChange(const ByPart<at::Tensor>& tensors, const at::Tensor& weight) {
  const at::Tensor a1 = Flat(Get(tensors, Part::kGloraA1)), a2 = Flat(Get(tensors, Part::kGloraA2));
  const at::Tensor b1 = Flat(Get(tensors, Part::kGloraB1)), b2 = Flat(Get(tensors, Part::kGloraB2));
  const auto matrix = [](const at::Tensor& t) { return Matrix{t.size(0), t.size(1)}; };
  if (GloraLayout(matrix(a1), matrix(a2), matrix(b1), matrix(b2), weight.sizes().vec())
          .old_layout) {
    return at::mm(b2, b1).add_(at::mm(at::mm(Flat(weight), a2), a1));
  }
  at::Tensor change = at::mm(b1, b2);
  const at::Tensor by_input = weight.flatten(2 < weight.dim() ? 2 : 1);
  if (weight.dim() == 2) return change.add_(at::mm(at::mm(by_input, a1), a2));
  return change.add_(at::einsum("oik,ij,jl->olk", {by_input, a1, a2}).flatten(1));
}

absl::StatusOr<int64_t> CheckDiff(const ModuleTensors& tensors, const Shape& shape) {
  RETURN_IF_ERROR(CheckShape(*tensors[Part::kDiff], shape));
  return 0;
}

absl::StatusOr<int64_t> CheckSet(const ModuleTensors& tensors, const Shape& shape) {
  RETURN_IF_ERROR(CheckShape(*tensors[Part::kSet], shape));
  return 0;
}

const std::vector<Algorithm>& Algorithms() {
  static const auto* const kAlgorithms = new std::vector<Algorithm>{
      {.name = "LoRA",
       .marks = {Part::kUp, Part::kDown},
       .parts = {Part::kUp, Part::kDown, Part::kMid},
       .check = CheckLora,
       .change = LoraChange},
      {.name = "LoHa",
       .marks = {Part::kLohaW1A, Part::kLohaW1B, Part::kLohaW2A, Part::kLohaW2B},
       .parts = {Part::kLohaW1A, Part::kLohaW1B, Part::kLohaW2A, Part::kLohaW2B, Part::kLohaT1,
                 Part::kLohaT2},
       .check = CheckLoha,
       .change = LohaChange},
      {.name = "LoKr",
       .marks = {Part::kLokrW1, Part::kLokrW1A, Part::kLokrW2, Part::kLokrW2A},
       .parts = {Part::kLokrW1, Part::kLokrW1A, Part::kLokrW1B, Part::kLokrW2, Part::kLokrW2A,
                 Part::kLokrW2B, Part::kLokrT2},
       .check = CheckLokr,
       .change = LokrChange},
      {.name = "GLoRA",
       .marks = {Part::kGloraA1, Part::kGloraA2, Part::kGloraB1, Part::kGloraB2},
       .parts = {Part::kGloraA1, Part::kGloraA2, Part::kGloraB1, Part::kGloraB2},
       .check = CheckGlora,
       .change = GloraChange},
      {.name = "a full difference",
       .marks = {Part::kDiff},
       .parts = {Part::kDiff},
       .check = CheckDiff,
       .change = [](const ByPart<at::Tensor>& tensors,
                    const at::Tensor&) { return Get(tensors, Part::kDiff); }},
      {.name = "a whole weight",
       .marks = {Part::kSet},
       .parts = {Part::kSet},
       .check = CheckSet,
       .change = [](const ByPart<at::Tensor>& tensors,
                    const at::Tensor&) { return Get(tensors, Part::kSet); },
       .replaces = true},
  };
  return *kAlgorithms;
}

}  // namespace

absl::Status CheckShape(const TensorInfo& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape == shape) return absl::OkStatus();
  return Misfit(tensor, ShapeString(shape));
}

absl::StatusOr<const Algorithm*> FindAlgorithm(const ModuleTensors& tensors) {
  const Algorithm* found = nullptr;
  const TensorInfo* first = nullptr;
  for (const Algorithm& algorithm : Algorithms()) {
    for (Part part : algorithm.marks) {
      if (!tensors.has(part) || found == &algorithm) continue;
      if (found != nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            Quoted(first->name), " and ", Quoted(tensors[part]->name), " change one weight, as ",
            found->name, " and as ", algorithm.name, "; allowed: one of them"));
      }
      found = &algorithm;
      first = tensors[part];
    }
  }
  return found;
}

}  // namespace distorch::lora
