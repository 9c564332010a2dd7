// A bundle of edgedistill in C++17: the manifest, pictures as the models take them, and answers. No runtime: that is
// what the programs beside this file add. Copy it into your own program.
//
// It computes as the kit (ontarget.pyz) does, to the bit: compile with -ffp-contract=off, or a product and a sum may
// be rounded once in place of twice.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace edgedistill {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

// A fault of the user or of the machine: one paragraph.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// -- the bundle ---------------------------------------------------------------------------------------------------

// One model of the manifest; `batch` is 0 where the graph takes any.
struct Model {
    std::string name, file, sha256, input, layout, input_type, output, output_type;
    fs::path path;
    std::vector<std::int64_t> shape;  // of one image: (S, S, 3) or (3, S, S)
    std::int64_t batch = 0;
};

struct Bundle {
    fs::path folder;
    std::vector<std::string> classes;
    int resize = 0, crop = 0;
    std::array<double, 3> mean{}, std{};
    std::string chosen;
    std::vector<Model> models;

    // The model of that name, the chosen one for "".
    const Model& model(const std::string& name) const {
        std::string known;
        for (const Model& model : models) {
            if (model.name == (name.empty() ? chosen : name)) return model;
            known += (known.empty() ? "" : ", ") + model.name;
        }
        throw Fault("the bundle has no model " + (name.empty() ? chosen : name) + ". It has: " + known + ".");
    }
};

// A file of at most `most` bytes.
inline std::string read_file(const fs::path& path, std::uintmax_t most) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    std::ifstream file(path, std::ios::binary);
    if (error || !file) throw Fault(path.string() + " cannot be read.");
    if (size > most) throw Fault(path.string() + " is larger than " + std::to_string(most) + " bytes.");
    std::string text(size, '\0');
    if (!file.read(text.data(), static_cast<std::streamsize>(size))) throw Fault(path.string() + " cannot be read.");
    return text;
}

// The path of a file of the bundle, which must not lie outside.
inline fs::path inside(const fs::path& folder, const std::string& file) {
    std::error_code error;
    const fs::path path = fs::canonical(folder / file, error);
    if (error || !fs::is_regular_file(path)) throw Fault("the manifest names " + file + ", which is not there.");
    if (*path.lexically_relative(fs::canonical(folder)).begin() == "..")
        throw Fault("the manifest names " + file + ", which is not inside the folder of the bundle.");
    return path;
}

inline Model read_model(const nlohmann::json& entry, const fs::path& folder, int crop, std::size_t classes) {
    const auto &in = entry.at("input"), &out = entry.at("output");
    Model model;
    entry.at("name").get_to(model.name);
    entry.at("file").get_to(model.file);
    entry.at("sha256").get_to(model.sha256);
    in.at("name").get_to(model.input);
    in.at("layout").get_to(model.layout);
    in.at("dtype").get_to(model.input_type);
    out.at("name").get_to(model.output);
    out.at("dtype").get_to(model.output_type);
    model.path = inside(folder, model.file);
    const auto& shape = in.at("shape");
    if (!shape.at(0).is_null()) shape.at(0).get_to(model.batch);
    for (std::size_t i = 1; i < shape.size(); ++i) model.shape.push_back(shape[i].get<std::int64_t>());
    const std::int64_t side = crop;
    const std::vector<std::int64_t> planes{3, side, side}, pixels{side, side, 3};
    if (model.shape != (model.layout == "float_nchw" ? planes : pixels) || model.batch < 0 || model.batch > 4096 ||
        out.at("shape").at(1) != classes)
        throw Fault("the manifest states shapes of " + model.name + " that do not fit its " + std::to_string(crop) +
                    " px and " + std::to_string(classes) + " classes.");
    return model;
}

// The bundle in a folder, from its manifest.
inline Bundle load_bundle(const fs::path& folder) {
    const fs::path path = folder / "manifest.json";
    if (!fs::is_regular_file(path))
        throw Fault(folder.string() + " is not a bundle: it has no manifest.json. Give the bundle folder first.");
    try {
        const auto top = nlohmann::json::parse(read_file(path, 16'000'000));
        const std::string schema = top.at("schema").get<std::string>();
        if (schema != "edgedistill.bundle/1")
            throw Fault("the schema is " + schema + ", this program reads edgedistill.bundle/1.");
        const auto& preprocess = top.at("preprocess");
        Bundle bundle;
        bundle.folder = folder;
        top.at("classes").get_to(bundle.classes);
        top.at("chosen").get_to(bundle.chosen);
        preprocess.at("resize").get_to(bundle.resize);
        preprocess.at("crop").get_to(bundle.crop);
        preprocess.at("mean").get_to(bundle.mean);
        preprocess.at("std").get_to(bundle.std);
        if (preprocess.at("resample") != "bicubic" || preprocess.at("color") != "RGB" || bundle.crop < 1 ||
            bundle.resize < bundle.crop || bundle.resize > 8192 || bundle.classes.empty() ||
            *std::min_element(bundle.std.begin(), bundle.std.end()) <= 1e-6)
            throw Fault("its classes or preprocessing are not what this program knows.");
        for (const auto& entry : top.at("models"))
            bundle.models.push_back(read_model(entry, folder, bundle.crop, bundle.classes.size()));
        return bundle;
    } catch (const nlohmann::json::exception& error) {
        throw Fault(path.string() + " is damaged: " + error.what() + ".");
    } catch (const Fault& fault) {
        throw Fault(path.string() + ": " + fault.what());
    }
}

// -- pictures -----------------------------------------------------------------------------------------------------

struct Image {
    std::int64_t width = 0, height = 0;
    Bytes rgb;  // (height, width, 3)
};

// The next picture of a stream of binary PPM (P6, 8 bits); `name` is for the message.
inline Image read_ppm(std::istream& stream, const std::string& name) {
    const auto number = [&] {
        std::string comment;
        while (stream >> std::ws && stream.peek() == '#') std::getline(stream, comment);
        std::int64_t value = -1;
        stream >> value;
        return stream ? value : -1;
    };
    std::array<char, 2> magic{};
    if (!stream.read(magic.data(), 2) || magic[0] != 'P' || magic[1] != '6')
        throw Fault(name + " is no binary PPM (P6). Convert it, for example:  ffmpeg -i cat.jpg cat.ppm");
    Image image;
    image.width = number();
    image.height = number();
    const auto most = number();
    if (image.width < 1 || image.height < 1 || most < 1) throw Fault(name + ": its PPM header is damaged.");
    if (most != 255) throw Fault(name + ": values up to " + std::to_string(most) + ", only 8 bits (255) are read.");
    if (image.width > 89'478'485 / image.height)
        throw Fault(name + ": more than 89478485 pixels, which is the most that is read.");
    stream.get();  // the one blank after the header
    image.rgb.resize(static_cast<std::size_t>(image.width * image.height * 3));
    if (!stream.read(reinterpret_cast<char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size())))
        throw Fault(name + " ends before its last pixel.");
    return image;
}

// What one sample of a resized line is made of: weights, in units of 2^-22, of the samples from `first` on.
struct Taps {
    std::int64_t first = 0;
    std::vector<std::int32_t> weights;
};

// Samples `start` to `start + count` of a line of `from` samples resized to `to`: Pillow's antialiased bicubic.
inline std::vector<Taps> bicubic(std::int64_t from, std::int64_t to, std::int64_t start, std::int64_t count) {
    const auto curve = [](double x) {
        constexpr double a = -0.5;
        x = std::fabs(x);
        if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
    };
    const double scale = static_cast<double>(from) / static_cast<double>(to), wide = std::max(scale, 1.0);
    const double support = 2 * wide, shrink = 1 / wide;
    std::vector<Taps> line;
    for (std::int64_t place = start; place < start + count; ++place) {
        const double centre = (static_cast<double>(place) + 0.5) * scale;
        Taps taps;
        taps.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - support + 0.5));
        const auto end = std::min(from, static_cast<std::int64_t>(centre + support + 0.5));
        std::vector<double> shares;
        for (auto x = taps.first; x < end; ++x)
            shares.push_back(curve((static_cast<double>(x) - centre + 0.5) * shrink));
        const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
        for (const double share : shares) {
            const double fixed = share / sum * (1 << 22);
            taps.weights.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
        }
        line.push_back(std::move(taps));
    }
    return line;
}

// The sum of weighted samples that lie `stride` bytes apart, as a byte.
inline std::uint8_t weighted(const Taps& taps, const std::uint8_t* line, std::int64_t stride) {
    std::int32_t sum = 1 << 21;
    for (std::size_t i = 0; i < taps.weights.size(); ++i)
        sum += taps.weights[i] * line[(taps.first + static_cast<std::int64_t>(i)) * stride];
    return static_cast<std::uint8_t>(std::clamp(sum >> 22, 0, 255));
}

// Lines (rows, width, 3) resized to (rows, taps, 3).
inline Bytes horizontal(const Bytes& from, std::int64_t width, const std::vector<Taps>& taps) {
    const auto wide = width * 3, row = static_cast<std::int64_t>(taps.size()) * 3;
    const auto rows = static_cast<std::int64_t>(from.size()) / wide;
    Bytes out(static_cast<std::size_t>(rows * row));
    for (std::int64_t y = 0; y < rows; ++y)
        for (std::int64_t x = 0; x < row; ++x)
            out[y * row + x] = weighted(taps[x / 3], &from[y * wide + x % 3], 3);
    return out;
}

// Lines (rows, width, 3) resized to (taps, width, 3).
inline Bytes vertical(const Bytes& from, std::int64_t width, const std::vector<Taps>& taps) {
    const auto row = width * 3;
    Bytes out;
    out.reserve(taps.size() * static_cast<std::size_t>(row));
    for (const Taps& one : taps)
        for (std::int64_t x = 0; x < row; ++x) out.push_back(weighted(one, &from[x], row));
    return out;
}

// The pixels (crop, crop, 3) of a picture: the shorter side becomes `resize`, then the centre is cut out. Of the
// resized picture only the crop is computed. The width comes first: each pass rounds to bytes, so the order shows.
inline Bytes resize_crop(const Image& image, std::int64_t resize, std::int64_t crop) {
    const auto shorter = std::min(image.width, image.height);
    const auto scaled = [&](std::int64_t side) { return (2 * side * resize + shorter) / (2 * shorter); };
    const auto width = scaled(image.width), height = scaled(image.height);
    if (width > (1 << 26) / height)
        throw Fault("a picture of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                    " pixels is too long to be resized to " + std::to_string(resize) + ".");
    const auto across = bicubic(image.width, width, (width - crop) / 2, crop);
    const auto down = bicubic(image.height, height, (height - crop) / 2, crop);
    return vertical(horizontal(image.rgb, image.width, across), crop, down);
}

// Refuses a model whose types this program does not compute.
inline void require_known(const Model& model) {
    const std::map<std::string, std::string> types{
        {"uint8_nhwc", "uint8"}, {"int8_nhwc", "int8"}, {"float_nchw", "float32"}};
    const auto found = types.find(model.layout);
    if (found == types.end() || found->second != model.input_type || model.output_type != "float32")
        throw Fault(model.name + " takes " + model.layout + " in " + model.input_type + " and gives " +
                    model.output_type + ". This program feeds uint8_nhwc, int8_nhwc and float_nchw in float32, and "
                    "reads float32: name another model with --model.");
}

// Pixels (crop, crop, 3) as the graph takes them, `count` times.
inline Bytes to_input(const Bytes& pixels, const Model& model, const Bundle& bundle, std::int64_t count) {
    Bytes one = pixels;
    if (model.layout == "int8_nhwc") {
        for (auto& value : one) value = static_cast<std::uint8_t>(value - 128);  // pixel - 128 as an int8
    } else if (model.layout == "float_nchw") {
        const std::size_t area = pixels.size() / 3;
        std::vector<float> planes(pixels.size());
        for (std::size_t c = 0; c < 3; ++c) {
            const auto scale = static_cast<float>(1.0 / (255.0 * bundle.std[c]));
            const auto shift = static_cast<float>(-bundle.mean[c] / bundle.std[c]);
            for (std::size_t i = 0; i < area; ++i)
                planes[c * area + i] = static_cast<float>(pixels[3 * i + c]) * scale + shift;
        }
        one.resize(planes.size() * sizeof(float));
        std::memcpy(one.data(), planes.data(), one.size());
    }
    Bytes all;
    for (std::int64_t i = 0; i < count; ++i) all.insert(all.end(), one.begin(), one.end());
    return all;
}

// -- answers ------------------------------------------------------------------------------------------------------

// Text for a terminal: control characters become `?`.
inline std::string clean(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<std::uint8_t>(text[i]);
        const auto next = static_cast<std::uint8_t>(i + 1 < text.size() ? text[i + 1] : 0);
        const bool wide = byte == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009F
        out += byte < 0x20 || byte == 0x7f || wide ? '?' : text[i];
        if (wide) ++i;
    }
    return out;
}

// Prints the `top` likeliest classes with the softmax of the logits.
inline void print_top(const std::vector<float>& logits, const std::vector<std::string>& classes, std::size_t top) {
    for (const float logit : logits)
        if (!std::isfinite(logit)) throw Fault("the model gave outputs that are not finite.");
    const double highest = *std::max_element(logits.begin(), logits.end());
    std::vector<double> shares;
    for (const float logit : logits) shares.push_back(std::exp(logit - highest));
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return shares[a] > shares[b]; });
    order.resize(std::min(top, order.size()));
    for (const auto i : order) std::printf("%5.1f %%  %s\n", shares[i] / sum * 100, clean(classes[i]).c_str());
}

// An upper bound of the percentile `p` that holds with 99 % confidence, as the kit prints it (the early-stopping rule
// of MLPerf); negative where the runs are too few: p50 needs 11, p90 needs 64.
inline double upper_percentile(std::vector<double> times, double p) {
    const auto n = static_cast<double>(times.size());
    std::size_t drop = 0;  // the largest t with P(Binom(n, 1 - p) <= t) <= 0.01
    double term = n * std::log(p), tail = term;
    while (drop < times.size()) {
        const auto k = static_cast<double>(drop);
        term += std::log((n - k) / (k + 1)) + std::log((1 - p) / p);
        const double next = std::max(tail, term) + std::log1p(std::exp(-std::fabs(tail - term)));
        if (next > std::log(0.01)) break;
        tail = next;
        ++drop;
    }
    if (drop == 0) return -1;
    std::sort(times.begin(), times.end());
    return times[times.size() - drop];
}

// Prints p50 and p90 of `runs` calls, after 10 calls and 0.2 s that are not timed.
inline void bench(const std::function<void()>& call, int runs) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point began) {
        return std::chrono::duration<double>(Clock::now() - began).count();
    };
    const auto began = Clock::now();
    for (int warm = 0; warm < 10 || since(began) < 0.2; ++warm) call();
    std::vector<double> times;
    for (int i = 0; i < runs; ++i) {
        const auto from = Clock::now();
        call();
        times.push_back(since(from));
    }
    for (const auto& [name, p, need] : {std::tuple{"p50", 0.5, 11}, std::tuple{"p90", 0.9, 64}}) {
        const double bound = upper_percentile(times, p);
        if (bound < 0) std::printf("%s  needs %d runs, got %d\n", name, need, runs);
        else std::printf("%s  %.3f ms\n", name, bound * 1000);
    }
}

// -- the command line ---------------------------------------------------------------------------------------------

// `BUNDLE IMAGE...` and options.
struct Arguments {
    std::vector<std::string> words;
    std::map<std::string, std::string> options;

    std::string text(const std::string& name) const {
        const auto found = options.find(name);
        return found == options.end() ? "" : found->second;
    }
    int number(const std::string& name, int otherwise, int least, int most) const {
        const std::string given = text(name);
        if (given.empty()) return otherwise;
        const bool digits = given.size() < 8 && given.find_first_not_of("0123456789") == std::string::npos;
        const int value = digits ? std::stoi(given) : -1;
        if (value < least || value > most)
            throw Fault(name + " needs a number from " + std::to_string(least) + " to " + std::to_string(most) +
                        ", got " + given + ".");
        return value;
    }
};

// `own` is the option that a program has beside those of all; --cropped alone takes no value.
inline Arguments parse(int argc, char** argv, const std::string& own) {
    const std::vector<std::string> known{"--model", "--top", "--bench", own};
    Arguments found;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "-" || word.rfind("-", 0) != 0) {
            found.words.push_back(word);
        } else if (word == "--cropped") {
            found.options[word] = "yes";
        } else if (std::find(known.begin(), known.end(), word) == known.end()) {
            throw Fault("unknown option " + word + ". Known: --model, --top, --bench, --cropped, " + own + ".");
        } else if (++i == argc || *argv[i] == '\0') {
            throw Fault(word + " needs a value.");
        } else {
            found.options[word] = argv[i];
        }
    }
    if (found.words.size() < 2)
        throw Fault("give the bundle folder and one or more pictures in PPM:  classify BUNDLE cat.ppm  (- is the "
                    "standard input).");
    return found;
}

// Runs a model on an input; the logits of the first image.
using Run = std::function<std::vector<float>(const Bytes&)>;

// Classifies every picture of the command line, or times the first. `batch` is what one run takes.
inline void classify(const Arguments& given, const Bundle& bundle, const Model& model, std::int64_t batch,
                     const Run& run) {
    const int runs = given.number("--bench", 0, 1, 1'000'000);
    const int top = given.number("--top", 5, 1, 100'000);
    const bool cropped = !given.text("--cropped").empty();
    for (std::size_t i = 1; i < given.words.size(); ++i) {
        const std::string& name = given.words[i];
        std::ifstream file;
        if (name != "-") file.open(name, std::ios::binary);
        std::istream& stream = name == "-" ? std::cin : file;
        if (!stream) throw Fault(name + " cannot be opened.");
        int place = 0;
        do {  // a stream may hold one picture after the other
            const Image image = read_ppm(stream, name);
            if (cropped && (image.width != bundle.crop || image.height != bundle.crop))
                throw Fault(name + " has " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                            " pixels; with --cropped it must have the " + std::to_string(bundle.crop) + " x " +
                            std::to_string(bundle.crop) + " that the model takes. Without it, it is resized.");
            const Bytes pixels = cropped ? image.rgb : resize_crop(image, bundle.resize, bundle.crop);
            const Bytes input = to_input(pixels, model, bundle, batch);
            if (runs != 0) return bench([&] { run(input); }, runs);
            ++place;
            if (given.words.size() > 2 || place > 1 || stream.peek() != EOF)
                std::printf("%s%s, picture %d\n", i > 1 || place > 1 ? "\n" : "", clean(name).c_str(), place);
            print_top(run(input), bundle.classes, static_cast<std::size_t>(top));
        } while (stream.peek() != EOF);
    }
}

// The exit code of a program: 0, or 2 (3: out of memory) and one paragraph.
inline int guarded(const std::function<void()>& program) {
    try {
        program();
        return 0;
    } catch (const std::bad_alloc&) {
        std::cerr << "classify: out of memory; close other programs.\n";
        return 3;
    } catch (const std::exception& error) {
        std::cerr << "classify: " << clean(error.what()) << "\n";
        return 2;
    }
}

}  // namespace edgedistill
