// Classifies pictures with a TensorRT engine that was built on this board from a model of a bundle
// (python3 ontarget.pyz build-engine, or build_engine.sh). TensorRT 8.5 to 11.
//
//   classify BUNDLE cat.ppm dog.ppm [--model NAME] [--engine FILE] [--top K] [--cropped] [--bench RUNS]
//
// Pictures are binary PPM; - reads them from the standard input, one after the other. Without --engine it takes the
// newest engine in the folder of the bundle that belongs to the model and to this machine.
#include "../bundle.hpp"

#include <memory>
#include <optional>
#include <regex>

#include <NvInfer.h>
#include <cuda_runtime_api.h>
#include <openssl/evp.h>

using namespace edgedistill;

namespace {

void check(cudaError_t code, const char* what) {
    if (code != cudaSuccess) throw Fault(std::string(what) + ": " + cudaGetErrorString(code) + ".");
}

// -- which engine -------------------------------------------------------------------------------------------------

// Facts on this machine as an engine's document names them; what is not known is not there.
using Place = std::map<std::string, std::string>;

// A small file of the system, "" where there is none.
std::string system_text(const char* path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

Place this_machine() {
    cudaDeviceProp gpu;
    check(cudaGetDeviceProperties(&gpu, 0), "no NVIDIA GPU answers");
    const int version = getInferLibVersion(), unit = version < 10000 ? 1000 : 10000;
    Place place{{"tensorrt", std::to_string(version / unit) + "." + std::to_string(version % unit / 100) + "." +
                                 std::to_string(version % 100)},
                {"sm", std::to_string(gpu.major) + "." + std::to_string(gpu.minor)}};
    std::smatch found;
    const std::string release = system_text("/etc/nv_tegra_release");
    if (std::regex_search(release, found, std::regex(R"(R(\d+).*?REVISION:\s*([\d.]+))")))
        place["l4t"] = found[1].str() + "." + found[2].str();
    std::string board = system_text("/proc/device-tree/model");
    if (board.empty()) board = gpu.name;
    place["gpu"] = std::regex_replace(board, std::regex("[^A-Za-z0-9_:.x -]"), "").substr(0, 80);
    return place;
}

std::string sha256(const std::string& data) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned size = 0;
    if (EVP_Digest(data.data(), data.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1)
        throw Fault("OpenSSL cannot compute a SHA-256.");
    std::string hex;
    for (unsigned i = 0; i < size; ++i)
        for (const int half : {digest[i] >> 4, digest[i] & 15}) hex += "0123456789abcdef"[half];
    return hex;
}

// An engine that belongs to a model and to this machine.
struct Fitting {
    fs::path path;
    const Model* model = nullptr;
    std::optional<int> dla_core;
};

// An engine, or why it is not used. What is not known on either side is no reason.
Fitting fitting(const fs::path& path, const Bundle& bundle, const std::string& name, const Place& here) {
    const fs::path beside = path.string() + ".json";
    if (!fs::is_regular_file(path)) throw Fault("it is not there");
    const auto about = fs::is_regular_file(beside) ? nlohmann::json::parse(read_file(beside, 1 << 16), nullptr, false)
                                                   : nlohmann::json();
    const auto text = [&](const char* key) {
        return about.contains(key) && about[key].is_string() ? about[key].get<std::string>() : "";
    };
    if (!about.is_object() || text("schema") != "ontarget.engine/1")
        throw Fault("nothing beside it says what it is (" + beside.filename().string() + ")");
    Fitting found{path, nullptr, std::nullopt};
    for (const Model& model : bundle.models)
        if (model.sha256 == text("onnx_sha256") && (name.empty() || model.name == name)) found.model = &model;
    if (found.model == nullptr) throw Fault("it is of another model (" + text("onnx_sha256").substr(0, 8) + ")");
    for (const auto& [key, words] : {std::pair{"tensorrt", "TensorRT"}, std::pair{"sm", "GPU"},
                                     std::pair{"l4t", "Jetson Linux"}, std::pair{"gpu", "board"}}) {
        const auto mine = here.find(key);
        if (mine != here.end() && !text(key).empty() && text(key) != mine->second)
            throw Fault(std::string("it is of another ") + words + " (" + text(key) + ", here " + mine->second + ")");
    }
    if (about.contains("dla_core") && about["dla_core"].is_number_integer()) found.dla_core = about["dla_core"];
    return found;
}

// The engine that was named, or the newest one of the bundle that fits.
Fitting locate(const Arguments& given, const Bundle& bundle) {
    const std::string name = given.text("--model"), engine = given.text("--engine");
    if (!name.empty()) bundle.model(name);
    std::vector<fs::path> paths;
    if (!engine.empty()) paths = {engine};
    else
        for (const auto& entry : fs::directory_iterator(bundle.folder))
            if (entry.path().extension() == ".engine") paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    const Place here = this_machine();
    std::vector<Fitting> all;
    std::string reasons;
    for (const fs::path& path : paths) {
        try {
            all.push_back(fitting(path, bundle, name, here));
        } catch (const Fault& fault) {
            reasons += " " + path.filename().string() + " is not used: " + fault.what() + ".";
        }
    }
    if (all.empty())
        throw Fault("no engine is here for TensorRT " + here.at("tensorrt") + " and SM " + here.at("sm") + "." +
                    reasons + " Build it here:  python3 ontarget.pyz build-engine");
    for (const Fitting& found : all)
        if (found.model != all.front().model)
            throw Fault("engines of " + all.front().model->name + " and of " + found.model->name +
                        " are here: name one with --model.");
    return *std::max_element(all.begin(), all.end(), [](const Fitting& a, const Fitting& b) {
        return fs::last_write_time(a.path) < fs::last_write_time(b.path);
    });
}

// -- running it ---------------------------------------------------------------------------------------------------

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, char const* text) noexcept override {
        if (severity <= Severity::kERROR) std::cerr << "TensorRT: " << clean(text) << "\n";
    }
};

struct FreeDevice {
    void operator()(void* memory) const { cudaFree(memory); }
};
using Device = std::unique_ptr<void, FreeDevice>;

Device on_device(std::size_t count) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, count), "no memory on the GPU");
    return Device(memory);
}

struct EndStream {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};

// An engine with memory for one batch.
class Session {
public:
    Session(const Fitting& found, std::size_t classes)
        : model_(*found.model), file_(found.path.filename().string()), classes_(classes) {
        const std::string data = read_file(found.path, std::uintmax_t{1} << 32);
        require_whole(found.path, data);
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        if (!runtime_) throw Fault("TensorRT does not start; it says why above.");
        if (found.dla_core) runtime_->setDLACore(*found.dla_core);
        engine_.reset(runtime_->deserializeCudaEngine(data.data(), data.size()));
        if (!engine_) throw Fault("TensorRT cannot read " + file_ + ": build it again.");
        context_.reset(engine_->createExecutionContext());
        if (!context_) throw Fault(file_ + " does not fit into memory; close other programs.");
        nvinfer1::Dims shape = take_shape();
        std::size_t count = model_.layout == "float_nchw" ? sizeof(float) : 1;
        for (int i = 0; i < shape.nbDims; ++i) count *= static_cast<std::size_t>(shape.d[i]);
        batch_ = shape.d[0];
        logits_.resize(static_cast<std::size_t>(batch_) * classes_);
        cudaStream_t stream = nullptr;
        check(cudaStreamCreate(&stream), "no stream on the GPU");
        stream_.reset(stream);
        input_ = on_device(count);
        output_ = on_device(logits_.size() * sizeof(float));
        if (!context_->setInputShape(model_.input.c_str(), shape) ||
            !context_->setTensorAddress(model_.input.c_str(), input_.get()) ||
            !context_->setTensorAddress(model_.output.c_str(), output_.get()))
            throw Fault(file_ + " does not take the batch it was built for: build it again.");
    }

    std::int64_t batch() const { return batch_; }

    std::vector<float> run(const Bytes& input) {
        cudaStream_t stream = stream_.get();
        check(cudaMemcpyAsync(input_.get(), input.data(), input.size(), cudaMemcpyHostToDevice, stream), "copying");
        if (!context_->enqueueV3(stream)) throw Fault(file_ + " failed to run; TensorRT says why above.");
        check(cudaMemcpyAsync(logits_.data(), output_.get(), logits_.size() * sizeof(float), cudaMemcpyDeviceToHost,
                              stream),
              "copying");
        check(cudaStreamSynchronize(stream), "running");
        return {logits_.begin(), logits_.begin() + static_cast<std::ptrdiff_t>(classes_)};
    }

private:
    // Refuses bytes that are not those that were built.
    void require_whole(const fs::path& path, const std::string& data) const {
        const auto about = nlohmann::json::parse(read_file(path.string() + ".json", 1 << 16));
        const auto wanted = about.find("engine_sha256");
        if (wanted != about.end() && wanted->is_string() && *wanted != sha256(data))
            throw Fault(file_ + " is not used: its bytes are not those that were built. Build it again:  python3 "
                                "ontarget.pyz build-engine");
    }

    // The shape of a batch. Refuses an engine whose tensors are not those of the manifest.
    nvinfer1::Dims take_shape() const {
        using nvinfer1::DataType;
        const char *in = model_.input.c_str(), *out = model_.output.c_str();
        const DataType type = model_.layout == "uint8_nhwc"  ? DataType::kUINT8
                              : model_.layout == "int8_nhwc" ? DataType::kINT8
                                                             : DataType::kFLOAT;
        nvinfer1::Dims shape = engine_->getTensorShape(in);
        const nvinfer1::Dims gives = engine_->getTensorShape(out);
        if (shape.nbDims == 4 && shape.d[0] < 0)
            shape.d[0] = engine_->getProfileShape(in, 0, nvinfer1::OptProfileSelector::kMAX).d[0];
        if (shape.nbDims != 4 || shape.d[0] < 1 || !std::equal(model_.shape.begin(), model_.shape.end(), shape.d + 1) ||
            engine_->getTensorIOMode(in) != nvinfer1::TensorIOMode::kINPUT ||
            engine_->getTensorDataType(in) != type || gives.nbDims != 2 ||
            static_cast<std::size_t>(gives.d[1]) != classes_ || engine_->getTensorDataType(out) != DataType::kFLOAT)
            throw Fault(file_ + " is not what the manifest says: it should take " + model_.input + " (" +
                        model_.layout + ", " + model_.input_type + ") and give " + model_.output +
                        " in float32. Build it again.");
        return shape;
    }

    const Model& model_;
    std::string file_;
    std::size_t classes_;
    std::int64_t batch_ = 0;
    std::vector<float> logits_;
    Logger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;  // each is used by the next, and goes after it
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::unique_ptr<std::remove_pointer_t<cudaStream_t>, EndStream> stream_;
    Device input_, output_;
};

void classify_with_tensorrt(const Arguments& given) {
    const Bundle bundle = load_bundle(given.words[0]);
    const Fitting found = locate(given, bundle);
    require_known(*found.model);
    Session session(found, bundle.classes.size());
    classify(given, bundle, *found.model, session.batch(), [&](const Bytes& input) { return session.run(input); });
}

}  // namespace

int main(int argc, char** argv) {
    return guarded([&] { classify_with_tensorrt(parse(argc, argv, "--engine")); });
}
