// The names of the kernels in a program or module, from its symbol table: kernels are functions whose names are not
// mangled and end with their storage, in the emulation as in what nvcc makes for the host.
#pragma once

#include <elf.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace gradflow::kernels::cuda {

// Throws std::runtime_error where the file has no symbol table.
inline std::set<std::string> kernel_names_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const auto read = [&]<class T>(T& to, std::size_t at) {
    if (at + sizeof to > bytes.size()) throw std::runtime_error(path + ": cut off at byte " + std::to_string(at));
    std::memcpy(&to, bytes.data() + at, sizeof to);
  };
  Elf64_Ehdr header;
  read(header, 0);
  const auto section = [&](std::size_t index) {
    Elf64_Shdr s;
    read(s, header.e_shoff + index * header.e_shentsize);
    return s;
  };
  std::set<std::string> names;
  bool found = false;
  for (std::size_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr symbols = section(i);
    if (symbols.sh_type != SHT_SYMTAB) continue;
    found = true;
    const Elf64_Shdr texts = section(symbols.sh_link);
    for (std::size_t at = 0; at < symbols.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      read(symbol, symbols.sh_offset + at);
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
      const auto* const text = bytes.data() + std::min(texts.sh_offset + symbol.st_name, bytes.size());
      const std::string name(text, strnlen(text, static_cast<std::size_t>(bytes.data() + bytes.size() - text)));
      const bool plain = std::ranges::all_of(
          name, [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '_'; });
      if (plain && (name.ends_with("_f32") || name.ends_with("_bf16"))) names.insert(name);
    }
  }
  if (!found) throw std::runtime_error(path + ": no symbol table");
  return names;
}

}  // namespace gradflow::kernels::cuda
