# Warnings, hardening and sanitizers, for every target of ours.
# The warnings stand in warnings.txt so that tools/check_compile can hand the same list to a second compiler.
include(CheckCCompilerFlag)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/warnings.txt)
file(STRINGS ${CMAKE_SOURCE_DIR}/cmake/warnings.txt warnings)

add_library(sluice_flags INTERFACE)
target_compile_definitions(sluice_flags INTERFACE _GNU_SOURCE SLUICE_VERSION="${PROJECT_VERSION}")
target_compile_options(sluice_flags INTERFACE ${warnings}
	-fno-strict-aliasing -fno-delete-null-pointer-checks
	-fno-common -fPIE -g)
target_link_options(sluice_flags INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,nodlopen,--as-needed)
target_link_libraries(sluice_flags INTERFACE m pthread)

# Messages are cut to their buffers by design: snprintf with a bound is how.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
	target_compile_options(sluice_flags INTERFACE -Wno-format-truncation)
endif()

# Hardening that not every compiler has.
foreach(flag -Wtrampolines -Wbidi-chars=any -fstack-clash-protection -fstack-protector-strong -fcf-protection=full
	-fstrict-flex-arrays=3 -ftrivial-auto-var-init=zero)
	string(MAKE_C_IDENTIFIER "have${flag}" known)
	check_c_compiler_flag(${flag} ${known})
	if(${known})
		target_compile_options(sluice_flags INTERFACE ${flag})
	endif()
endforeach()

if(CMAKE_BUILD_TYPE STREQUAL "Release")
	# Stacks are read from the unwind tables: a frame pointer would cost a register and three instructions a call.
	target_compile_options(sluice_flags INTERFACE -O3 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fomit-frame-pointer -fno-plt)
	# gcc would clear an exchange 8 bytes at a time; memset() of libc uses what the CPU has.
	set(clear_by_libc -mmemset-strategy=libcall:-1:noalign)
	check_c_compiler_flag(${clear_by_libc} have_memset_strategy)
	if(have_memset_strategy)
		target_compile_options(sluice_flags INTERFACE ${clear_by_libc})
	endif()
else()
	target_compile_options(sluice_flags INTERFACE -fno-omit-frame-pointer)
	if(SLUICE_SANITIZE OR SLUICE_FUZZ)
		target_compile_options(sluice_flags INTERFACE -O1)
	endif()
endif()
# Overflow wraps, but where a sanitizer is to report it: it says nothing of what is defined.
if(NOT SLUICE_SANITIZE)
	target_compile_options(sluice_flags INTERFACE -fno-strict-overflow)
endif()
if(SLUICE_SANITIZE)
	target_compile_options(sluice_flags INTERFACE -fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all)
	target_link_options(sluice_flags INTERFACE -fsanitize=${SLUICE_SANITIZE})
endif()
if(SLUICE_FUZZ)
	target_compile_options(sluice_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The rooms that read bytes from strangers may not lose bits by an implicit conversion.
set(sluice_strict_core -Wconversion)
set(sluice_strict_http -Wconversion)
