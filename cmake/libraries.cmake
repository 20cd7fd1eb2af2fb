# Which room links which library. A library has one door, so each is named once.
find_package(PkgConfig REQUIRED)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(SSL REQUIRED IMPORTED_TARGET libssl)
pkg_check_modules(CRYPT REQUIRED IMPORTED_TARGET libcrypt)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
pkg_check_modules(CARES REQUIRED IMPORTED_TARGET libcares)
pkg_check_modules(PQ REQUIRED libpq)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(BROTLI REQUIRED IMPORTED_TARGET libbrotlidec)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
# Its types only: the library is loaded when it is wanted (net/postgres_library.c).
add_library(sluice_libpq INTERFACE)
target_include_directories(sluice_libpq SYSTEM INTERFACE ${PQ_INCLUDE_DIRS})
set(sluice_libs_core PkgConfig::CRYPTO PkgConfig::CRYPT PkgConfig::PCRE2)
set(sluice_libs_net PkgConfig::CARES PkgConfig::SSL sluice_libpq)
set(sluice_libs_http PkgConfig::NGHTTP2)
set(sluice_libs_ai PkgConfig::ZLIB PkgConfig::BROTLI)
set(sluice_libs_control PkgConfig::SQLITE)
set(sluice_libs_cli PkgConfig::YAML)

# Sanitizers bring their own allocator.
if(SLUICE_JEMALLOC AND NOT SLUICE_SANITIZE AND NOT SLUICE_FUZZ)
	pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)
	# No symbol names it before the optimiser across files has run: the linker would leave it out as not needed.
	set(sluice_libs_allocator "-Wl,--no-as-needed,${JEMALLOC_LINK_LIBRARIES},--as-needed")
endif()
