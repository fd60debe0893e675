// What the running ARM processor can do.

#if defined(__linux__)
inline bool has_dot_products() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
inline bool has_mixed_products() { return getauxval(AT_HWCAP2) & HWCAP2_I8MM; }
#elif defined(__APPLE__)
inline bool has(const char* feature) {
  int32_t value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
inline bool has_dot_products() { return has("hw.optional.arm.FEAT_DotProd"); }
inline bool has_mixed_products() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
inline bool has_dot_products() { return false; }  // nothing tells: the scalar table runs
inline bool has_mixed_products() { return false; }
#endif
