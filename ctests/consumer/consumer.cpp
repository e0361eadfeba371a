// The same in C++.
#include <layerline.hpp>

#include <iostream>
#include <vector>

int main(int argc, char **argv)
try {
    if (argc != 2) return 2;
    layerline::model model(argv[1], layerline::options());
    layerline::session session(model, 64);
    session.forward(std::vector<layerline::token>{1, 40, 50});
    std::cout << "layerline " << layerline::version() << ": a pass has run\n";
} catch (const layerline::error &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
