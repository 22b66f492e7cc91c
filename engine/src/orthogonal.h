#pragma once

#include <cstddef>
#include <vector>

namespace gradflow {

// Replaces the rows x columns matrix w (row-major, drawn normal) by gain times one with orthonormal rows
// (rows <= columns) or orthonormal columns (rows > columns), by modified Gram-Schmidt in f64, twice.
// On a normal matrix that is a draw from the uniform (Haar) distribution, since Gram-Schmidt is the QR
// factorization with a positive diagonal (Mezzadri 2007).
void orthonormalize(std::vector<float>& w, std::size_t rows, std::size_t columns, double gain);

}  // namespace gradflow
