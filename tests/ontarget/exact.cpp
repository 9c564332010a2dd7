// What must be exact in export/examples/bundle.hpp, on its own.
//   exact pixels RESIZE CROP   the cropped bytes of each PPM of the standard input
//   exact percentile P         for each count N of the standard input: upper_percentile of the times 1 to N
#include "../../export/examples/bundle.hpp"

int main(int argc, char** argv) {
    using namespace edgedistill;
    return guarded([&] {
        const std::vector<std::string> words(argv + 1, argv + argc);
        if (words.at(0) == "pixels") {
            while (std::cin.peek() != EOF) {
                const Bytes out = resize_crop(read_ppm(std::cin, "-"), std::stoi(words.at(1)), std::stoi(words.at(2)));
                std::cout.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size()));
            }
            return;
        }
        for (std::size_t count = 0; std::cin >> count;) {
            std::vector<double> times(count);
            std::iota(times.begin(), times.end(), 1.0);
            std::cout << upper_percentile(times, std::stod(words.at(1))) << "\n";
        }
    });
}
