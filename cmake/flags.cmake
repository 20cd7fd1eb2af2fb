# Warnings, hardening and sanitizers, for every target of ours.
include(CheckCCompilerFlag)
add_library(sluice_flags INTERFACE)
target_compile_definitions(sluice_flags INTERFACE _GNU_SOURCE)
target_compile_options(sluice_flags INTERFACE
	-Wall -Wextra -Werror -Wshadow -Wvla -Wformat=2 -Wimplicit-fallthrough -Wstrict-prototypes
	-Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wundef
	-Werror=implicit -Werror=incompatible-pointer-types -Werror=int-conversion
	-fno-strict-aliasing -fno-delete-null-pointer-checks -fno-strict-overflow -fno-omit-frame-pointer
	-fno-common -fPIE -g)
foreach(flag -Wtrampolines -Wbidi-chars=any -fstack-clash-protection -fcf-protection=full -fstack-protector-strong
	-ftrivial-auto-var-init=zero)
	string(MAKE_C_IDENTIFIER "have${flag}" name)
	check_c_compiler_flag(${flag} ${name})
	if(${name})
		target_compile_options(sluice_flags INTERFACE ${flag})
	endif()
endforeach()
if(SLUICE_SANITIZE)
	target_compile_options(sluice_flags INTERFACE -fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all)
	target_link_options(sluice_flags INTERFACE -fsanitize=${SLUICE_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
	target_compile_options(sluice_flags INTERFACE -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
endif()
if(SLUICE_FUZZ)
	target_compile_options(sluice_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
target_link_options(sluice_flags INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed)
target_link_libraries(sluice_flags INTERFACE m pthread)
