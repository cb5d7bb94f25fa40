# Makefile: builds ckpt, its libraries and its tests. `make help` lists the targets.
#
# One file for all rooms: sources are found by wildcard, so adding a file needs no edit here.
# Everything made goes under $(BUILD).

BUILD ?= build
CC ?= cc
AR ?= ar
OBJCOPY ?= objcopy
NVCC ?= nvcc
PKG_CONFIG ?= pkg-config
CLANG ?= clang-14
CLANG_FORMAT ?= clang-format-14
PREFIX ?= /usr/local
LIBDIR ?= lib
export LIBDIR
DESTDIR ?=
FUZZ_SECONDS ?= 60
SANITIZE ?=
PYTEST_ARGS ?=
# V=1 shows every command.
Q := $(if $(V),,@)
SAY := @printf '  %-5s %s\n'
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all

VERSION := $(shell sed -n 's/^.define CKPT_VERSION "\(.*\)"/\1/p' libckpt/ckpt.h 2>/dev/null)
MACHINE := $(shell $(CC) -dumpmachine)
X86 := $(filter x86_64-%,$(MACHINE))

# ---- sources ----

# Compiled once per instruction set, with its flags and its name in KERNELS_ISA.
EACH_ISA_C := kernels/hash.c kernels/quantise_rows.c kernels/statistics_rows.c
SCALAR_C := $(filter-out kernels/avx2%.c kernels/avx512%.c $(EACH_ISA_C),$(wildcard kernels/*.c))
AVX2_C := $(if $(X86),$(wildcard kernels/avx2*.c))
AVX512_C := $(if $(X86),$(wildcard kernels/avx512*.c))
ISAS := scalar $(if $(X86),avx2 avx512)
# A room may hold rooms.
below = $(wildcard $(foreach room,$(1),$(room)/*.$(2) $(room)/*/*.$(2)))
LIB_C := $(call below,libckpt formats verify,c)
MAPS := $(filter-out %.md %.part,$(sort $(wildcard formats/maps/*)))
MAP_PARTS := $(wildcard formats/maps/*.part)
RUNNER_C := $(call below,reference-runner,c)
TOOL_MAIN_C := $(wildcard tools/ckpt-*.c)
TOOL_C := $(filter-out $(TOOL_MAIN_C),$(call below,tools,c))
UNIT_MAIN_C := $(wildcard tests/unit/test_*.c)
UNIT_C := $(filter-out $(UNIT_MAIN_C),$(wildcard tests/unit/*.c))
FUZZ_MAIN_C := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_MAIN_C := $(wildcard tests/bench/bench_*.c)
# CUDA is an extra: without nvcc the .cu files are left out and the tools say so.
CUDA_CU := $(if $(shell command -v $(NVCC)),$(call below,kernels reference-runner,cu))

objects = $(patsubst %,$(BUILD)/obj/%.o,$(basename $(1)))
KERNEL_O := $(call objects,$(SCALAR_C) $(AVX2_C) $(AVX512_C)) \
    $(foreach isa,$(ISAS),$(EACH_ISA_C:%.c=$(BUILD)/obj/%-$(isa).o))
MAPS_O := $(if $(wildcard formats/maps.h),$(BUILD)/obj/maps.o)
LIB_O := $(KERNEL_O) $(call objects,$(LIB_C)) $(MAPS_O)
RUNNER_O := $(call objects,$(RUNNER_C)) $(CUDA_CU:%=$(BUILD)/obj/%.o)
TOOL_O := $(call objects,$(TOOL_C))

TOOLS := $(TOOL_MAIN_C:tools/%.c=$(BUILD)/bin/%)
UNIT_TESTS := $(UNIT_MAIN_C:tests/unit/%.c=$(BUILD)/tests/%)
REPLAYS := $(FUZZ_MAIN_C:tests/fuzz/%.c=$(BUILD)/tests/%)
FUZZERS := $(FUZZ_MAIN_C:tests/fuzz/%.c=$(BUILD)/fuzz/%)
BENCHES := $(BENCH_MAIN_C:tests/bench/%.c=$(BUILD)/bench/%) $(BUILD)/bench/parallel_copy
LIBS := $(BUILD)/libckpt.a $(BUILD)/install/libckpt.a $(if $(LIB_O),$(BUILD)/libckpt.so)
TEST_LIBS := $(if $(KERNEL_O),$(BUILD)/tests/libkernels-test.so) $(BUILD)/tests/fault.so \
    $(BUILD)/tests/no_memory.so

# ---- flags ----

PACKAGES := libzstd libdeflate libcrypto libcurl libpcre2-8
NO_BUILD := help clean format check-style uninstall
ifneq ($(filter-out $(NO_BUILD),$(or $(MAKECMDGOALS),all)),)
  ifneq ($(shell $(PKG_CONFIG) --exists $(PACKAGES) cmocka libxxhash && echo yes),yes)
    $(error a library is missing (pkg-config: $(PACKAGES) cmocka libxxhash); run scripts/setup)
  endif
  PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES))
  PACKAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES))
endif

CFLAGS ?= -g
WARNINGS := -Wall -Wextra -Werror -Wconversion -Wshadow -Wvla -Wmissing-prototypes \
    -Wstrict-prototypes
# -ffp-contract=off: a fused multiply-add would change bits, and bits are the product.
# Instrumented code makes GCC warn about what nobody wrote; the plain build is the judge.
SANITIZE_WARNINGS = $(if $(SANITIZE),-Wno-error -Wno-conversion -Wno-sign-conversion)
# A header of another room is included with the room's path. -iquote: never for <...>.
INCLUDES := -iquote .
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE $(INCLUDES) -include kernels/banned.h -O2 -ffp-contract=off \
    -fPIC -pthread $(WARNINGS) $(SANITIZE_WARNINGS) $(PACKAGE_CFLAGS) $(SANITIZE) $(CFLAGS) -MMD -MP
ALL_LIBS = -Wl,--as-needed $(PACKAGE_LIBS) -pthread -lm
AVX2_FLAGS := -mavx2 -mfma -mf16c -mbmi2
AVX512_FLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512vbmi2 $(AVX2_FLAGS)
ISA_FLAGS_scalar :=
ISA_FLAGS_avx2 := $(AVX2_FLAGS)
ISA_FLAGS_avx512 := $(AVX512_FLAGS)
# GCC's OpenMP runtime is invisible to ThreadSanitizer, and Clang's is not a dependency.
OPENMP := $(if $(findstring thread,$(SANITIZE))$(findstring clang,$(CC)),-Wno-unknown-pragmas,\
    -fopenmp)
CUDA_ARCHS ?= 80 90 100
CUDA_FLAGS := -std=c++20 -O3 -fmad=false -I. -Xcompiler -fPIC \
    $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
    -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
ifneq ($(CUDA_CU),)
  # nvcc may be a wrapper far from its libraries; it knows where they are.
  CUDA_HOME := $(shell $(NVCC) -dryrun -x cu -c /dev/null 2>&1 | sed -n 's/^.. _*TOP_*=//p')
  CUDA_LIBS := -L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib -lcudart_static -lrt -ldl -lstdc++
endif

# ---- targets ----

.PHONY: all help
all: $(LIBS) $(TOOLS)  ## the libraries and the tools (default)

help:  ## this list
	@awk -F ':.*## *' '/^[a-z-]+:.*## /{ printf "  %-14s %s\n", $$1, $$2 }' Makefile

$(BUILD)/obj/kernels/%.o: ALL_CFLAGS += -O3
$(call objects,$(AVX2_C)): ALL_CFLAGS += $(AVX2_FLAGS)
$(call objects,$(AVX512_C)): ALL_CFLAGS += $(AVX512_FLAGS)
# Reading must keep up with a device; -O2 leaves the check for NaN a byte at a time.
$(BUILD)/obj/reference-runner/weights_load.o: ALL_CFLAGS += -O3
$(BUILD)/obj/libckpt/encoding_rows.o: ALL_CFLAGS += -O3
$(BUILD)/obj/verify/value_mark.o: ALL_CFLAGS += -O3
# Its products are exact, so that fusing them changes no bit.
$(BUILD)/obj/reference-runner/cpu/cpu_product.o: ALL_CFLAGS += -ffp-contract=fast
$(BUILD)/obj/reference-runner/%.o: ALL_CFLAGS += $(OPENMP) $(if $(CUDA_CU),-DCKPT_CUDA)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

define each_isa
$(BUILD)/obj/kernels/%-$(1).o: kernels/%.c Makefile
	@mkdir -p $$(@D)
	$$(SAY) CC "$$< ($(1))"
	$$(Q)$$(CC) $$(ALL_CFLAGS) $$(ISA_FLAGS_$(1)) -DKERNELS_ISA=$(1) -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call each_isa,$(isa))))

$(BUILD)/obj/%.cu.o: %.cu Makefile
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# What archives and maps are made of. Removing a file makes no other file newer: the lists are
# compared.
$(BUILD)/maps.list: MADE_OF = $(MAPS) $(MAP_PARTS)
$(BUILD)/libckpt.list: MADE_OF = $(LIB_O)
$(BUILD)/librunner.list: MADE_OF = $(RUNNER_O)
$(BUILD)/libtool.list: MADE_OF = $(TOOL_O)
.PHONY: force
$(BUILD)/%.list: force
	@mkdir -p $(@D)
	@echo '$(MADE_OF)' | cmp -s - $@ || echo '$(MADE_OF)' > $@

# The model maps become C text, so that a tool is one file.
$(BUILD)/maps.c: $(MAPS) $(MAP_PARTS) scripts/embed $(BUILD)/maps.list
	@mkdir -p $(@D)
	$(SAY) EMBED $@
	$(Q)scripts/embed $(MAPS) > $@

$(BUILD)/obj/maps.o: $(BUILD)/maps.c formats/maps.h Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

# `rm` first: ar would keep the objects of files that are gone.
$(BUILD)/libckpt.a: $(LIB_O)
$(BUILD)/librunner.a: $(RUNNER_O)
$(BUILD)/libtool.a: $(TOOL_O)
$(BUILD)/%.a: $(BUILD)/%.list Makefile
	@mkdir -p $(@D)
	@rm -f $@
	$(SAY) AR $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

# The library reads local files alone: it does not ask for libcurl.
SO_O := $(filter-out $(BUILD)/obj/libckpt/hub/% $(BUILD)/obj/libckpt/remote/%,$(LIB_O))
$(BUILD)/libckpt.so: $(SO_O) libckpt/libckpt.map $(BUILD)/libckpt.list
	$(SAY) LINK $@
	$(Q)$(CC) -shared -Wl,-soname,libckpt.so.0 -Wl,--version-script,libckpt/libckpt.map \
	    $(if $(SANITIZE),,-Wl,-z,defs) $(SANITIZE) -o $@ $(SO_O) $(ALL_LIBS)
	@ln -sf libckpt.so $(BUILD)/libckpt.so.0

# The archive that is installed: one object, in which only the names of libckpt.map are global. The
# tools and tests link the one above, which has them all.
$(BUILD)/install/libckpt.a: $(SO_O) libckpt/libckpt.map $(BUILD)/libckpt.list Makefile
	@mkdir -p $(@D)
	@rm -f $@
	$(SAY) AR $@
	$(Q)sed -n 's/^ *\(ckpt_[a-z0-9_]*\);$$/\1/p' libckpt/libckpt.map > $(@D)/public
	$(Q)$(LD) -r -o $(@D)/ckpt.o $(SO_O)
	$(Q)$(OBJCOPY) --keep-global-symbols=$(@D)/public $(@D)/ckpt.o
	$(Q)$(AR) rcs $@ $(@D)/ckpt.o

# With the rules that the kernels quantise by: torch and others judge those whole.
TEST_LIB_O := $(KERNEL_O) $(call objects,$(wildcard libckpt/quantise*.c) libckpt/exact_sum.c \
    libckpt/nearest.c libckpt/dtype.c)
ifeq ($(SANITIZE),)
$(BUILD)/tests/libkernels-test.so: $(TEST_LIB_O)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) -shared -o $@ $(TEST_LIB_O) $(ALL_LIBS)
else
# Python loads it, which has no sanitizer in it: that would end the process.
$(BUILD)/tests/libkernels-test.so: force
	@mkdir -p $(@D)
	+$(Q)$(MAKE) BUILD=$(BUILD)/plain SANITIZE= SANITIZE_LINK= \
	    $(BUILD)/plain/tests/libkernels-test.so
	$(Q)cp $(BUILD)/plain/tests/libkernels-test.so $@
endif

ARCHIVES := $(BUILD)/libtool.a $(BUILD)/librunner.a $(BUILD)/libckpt.a
LINK = $(CC) $(SANITIZE) $(SANITIZE_LINK) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(ARCHIVES) \
    $(CUDA_LIBS) $(ALL_LIBS) $(if $(RUNNER_O),$(filter -fopenmp,$(OPENMP)))

$(BUILD)/bin/%: $(BUILD)/obj/tools/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK)

$(BUILD)/tests/test_%: $(BUILD)/obj/tests/unit/test_%.o $(call objects,$(UNIT_C)) $(ARCHIVES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK) -lcmocka

# The fuzz targets with a main that feeds them files: the corpus is a regression test everywhere.
$(BUILD)/tests/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK)

$(BUILD)/fuzz/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK) -fsanitize=fuzzer

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK)

# Only where nvcc is, and run by hand where a device is: the checks have none.
$(BUILD)/cuda/%: $(BUILD)/obj/tests/cuda/%.cu.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK)

$(BUILD)/tests/fault.so $(BUILD)/tests/no_memory.so: $(BUILD)/tests/%.so: tests/fault/%.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -O2 -g -fPIC $(WARNINGS) -shared -o $@ $< -ldl -pthread

# ---- checks ----

.PHONY: tests check check-style check-unit check-fuzz check-python check-release check-asan \
    check-tsan fuzz bench
tests: all $(UNIT_TESTS) $(REPLAYS) $(TEST_LIBS)  ## everything the checks run, without running it

check: tests  ## every check: style, unit, fuzz corpus, python; ends with the counts
	@scripts/check $(BUILD) style unit fuzz python

check-style:  ## file and function sizes, include direction, banned calls, folder rules
	@scripts/check $(BUILD) style

check-unit: $(UNIT_TESTS) $(TEST_LIBS)  ## the C unit tests
	@scripts/check $(BUILD) unit

check-fuzz: $(REPLAYS)  ## replay the fuzzers' corpus
	@scripts/check $(BUILD) fuzz

check-python: tests  ## the tests against torch, safetensors, transformers, megatron-core
	@PYTEST_ARGS='$(PYTEST_ARGS)' scripts/check $(BUILD) python

check-release: tests  ## what is too long for every check: the tests marked "release", in full
	@PYTEST_ARGS='$(PYTEST_ARGS)' scripts/check $(BUILD) release

check-asan:  ## unit, corpus and command-line tests under AddressSanitizer and UBSan
	+$(MAKE) BUILD=build-asan tests \
	    SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' \
	    SANITIZE_LINK='-static-libasan -static-libubsan'
	scripts/check build-asan unit fuzz cli

check-tsan:  ## unit and command-line tests under ThreadSanitizer
	+$(MAKE) BUILD=build-tsan tests SANITIZE='-fsanitize=thread -fno-omit-frame-pointer'
	scripts/check build-tsan unit cli

.PHONY: fuzzers
fuzzers: $(FUZZERS)

fuzz:  ## run each fuzzer for FUZZ_SECONDS (60) under Clang's sanitizers
	+$(MAKE) BUILD=build-fuzz CC=$(CLANG) fuzzers \
	    SANITIZE='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
	scripts/fuzz build-fuzz $(FUZZ_SECONDS)

bench: all $(BENCHES)  ## measure speed against cp and the peers that are installed
	scripts/bench $(BUILD)

# ---- installing ----

.PHONY: doc install uninstall clean format
doc: all  ## the man pages as HTML, in build/doc; needs mandoc
	@scripts/doc $(BUILD) $(VERSION)

install: all  ## into DESTDIR/PREFIX: tools, libraries, header, man pages, completion
	scripts/install $(BUILD) '$(PREFIX)' '$(DESTDIR)' $(VERSION)

uninstall:  ## remove what install put there
	scripts/install --remove '$(PREFIX)' '$(DESTDIR)'

clean:  ## remove everything that was built
	rm -rf build build-asan build-tsan build-fuzz

# Packages have no CUDA: they are made of a build without it, which dist and wheel link again.
.PHONY: dist wheel deb portable without-cuda
DIST_BUILD := $(BUILD)$(if $(CUDA_CU),/no-cuda)
without-cuda:
	+$(MAKE) NVCC=none BUILD=$(DIST_BUILD) all

portable: without-cuda
	scripts/packaging/portable $(DIST_BUILD)

dist: portable  ## BUILD/dist/*.tar.xz: the tools for every Linux with glibc 2.17 or newer
	scripts/packaging/dist $(DIST_BUILD) $(VERSION) $(BUILD)/dist

wheel: portable  ## BUILD/dist/*.whl: the tools and the Python module ckpt_tools, for pip
	scripts/packaging/wheel $(DIST_BUILD) $(VERSION) $(BUILD)/dist

deb: without-cuda  ## BUILD/dist/*.deb: packages for the Debian on which they are made
	scripts/packaging/deb $(DIST_BUILD) $(VERSION) $(BUILD)/dist

format:  ## clang-format the lines that differ from the last commit
	git-$(CLANG_FORMAT) --binary $(CLANG_FORMAT) --extensions c,h --force HEAD

$(BUILD)/obj/%.d: ;
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
