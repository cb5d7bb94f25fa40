/* isa.h: function names for the files that the build compiles once per instruction set.
 * ISA_NAME(f) is f_scalar, f_avx2 or f_avx512. */
#ifndef CKPT_KERNELS_ISA_H
#define CKPT_KERNELS_ISA_H

#ifndef KERNELS_ISA
#define KERNELS_ISA scalar
#endif
#define ISA_PASTE(name, isa) name##_##isa
#define ISA_EXPAND(name, isa) ISA_PASTE(name, isa)
#define ISA_NAME(name) ISA_EXPAND(name, KERNELS_ISA)

#endif
